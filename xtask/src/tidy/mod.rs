//! `cargo xtask tidy`: rules that no compiler holds. The table of them is [`rules::RULES`].

mod documents;
mod lines;
mod rules;
mod words;

use std::collections::BTreeSet;

use crate::Result;
use crate::cargo::Workspace;
use crate::rust_text::{Part, RustText};
use crate::sources::{self, Finding, Source};
use rules::{Ban, Check, RULES, Rule};
use words::Index;

/// The files that are read: those that people write. `.ci/run` has no extension.
const EXTENSIONS: [&str; 8] = [".rs", ".wit", ".md", ".toml", ".sql", ".html", ".py", ".ci/run"];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let files = sources::read(&workspace.root, |path| EXTENSIONS.iter().any(|end| path.ends_with(end)))?;
    let mut breaches = breaches(RULES, &files);
    let stale = take_allowed(RULES, &mut breaches);
    let mut findings: Vec<Finding> = breaches.iter().map(Breach::finding).collect();
    findings.extend(stale);
    findings.sort();
    let outcome = sources::conclude("tidy", &findings);
    for rule in RULES {
        let count = breaches.iter().filter(|breach| breach.rule.name == rule.name).count();
        if count > 0 {
            eprintln!("{:5} {}: {}", count, rule.name, rule.reason);
        }
    }
    outcome
}

/// A place where a rule does not hold.
struct Breach {
    rule: &'static Rule,
    path: String,
    line: usize,
    found: String,
    instead: String,
}

impl Breach {
    fn finding(&self) -> Finding {
        let text = format!("{}: {}; {}", self.rule.name, self.found, self.instead);
        Finding { path: self.path.clone(), line: self.line, text }
    }
}

/// A file as the checks see it.
struct File<'a> {
    source: &'a Source,
    /// None: neither Rust nor WIT.
    rust: Option<RustText<'a>>,
    /// Rust outside of comments and strings, and empty for all other files.
    code: String,
}

impl<'a> File<'a> {
    fn new(source: &'a Source) -> Self {
        let rust = matches!(source.extension(), "rs" | "wit").then(|| RustText::new(&source.text));
        let code = rust.as_ref().map(|rust| rust.only(&[Part::Code])).unwrap_or_default();
        Self { source, rust, code }
    }
}

/// The line, what was found there, and what to do instead.
type Found = (usize, String, String);

fn breaches(rules: &'static [Rule], files: &[Source]) -> Vec<Breach> {
    let index = Index::new(rules);
    let mut breaches = Vec::new();
    for source in files {
        let file = File::new(source);
        let mut add = |rule: &'static Rule, (line, found, instead): Found| {
            breaches.push(Breach { rule, path: source.path.clone(), line, found, instead });
        };
        index.search(&file, &mut add);
        for rule in rules {
            let found = match &rule.check {
                Check::Words(..) => continue,
                Check::DocStart(bans) => documents::starts(&file, bans),
                Check::Sentence(bans) => documents::sentences(&file, bans),
                Check::Code { bans, tests } => code(&file, bans, *tests),
                Check::File(check) => check(&file),
            };
            found.into_iter().for_each(|found| add(rule, found));
        }
    }
    breaches
}

/// Finds the texts of the bans in Rust code, with or without its tests.
fn code(file: &File<'_>, bans: &[Ban], in_tests: bool) -> Vec<Found> {
    let path = &file.source.path;
    let test_file = path.contains("/tests/") || path.ends_with("/tests.rs");
    if test_file && !in_tests {
        return Vec::new();
    }
    let mut found = Vec::new();
    for ban in bans {
        for (offset, text) in file.code.match_indices(ban.found) {
            let mut tests = file.rust.iter().flat_map(RustText::tests);
            if in_tests || !tests.any(|range| range.contains(&offset)) {
                let line = sources::line_at(&file.code, offset);
                found.push((line, format!("`{text}`"), format!("use {}", ban.instead)));
            }
        }
    }
    found
}

/// Removes what the rules allow. Returns a finding for each allowed path at which there is nothing to allow.
fn take_allowed(rules: &[Rule], breaches: &mut Vec<Breach>) -> Vec<Finding> {
    let mut used = BTreeSet::new();
    breaches.retain(|breach| {
        let path =
            breach.rule.allowed.iter().map(|(path, _)| *path).find(|path| breach.path.starts_with(path));
        used.extend(path.map(|path| (breach.rule.name, path)));
        path.is_none()
    });
    let allowed = rules.iter().flat_map(|rule| rule.allowed.iter().map(|(path, _)| (rule.name, *path)));
    let stale = allowed.filter(|entry| !used.contains(entry)).map(|(rule, path)| Finding {
        path: "xtask/src/tidy/rules.rs".to_owned(),
        line: 1,
        text: format!("{rule}: `{path}` is allowed, and nothing there needs it; remove the entry"),
    });
    stale.collect()
}

#[cfg(test)]
mod tests;
