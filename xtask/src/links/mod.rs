//! `cargo xtask links`: relative links in Markdown lead to files and headings that exist, and so do paths of
//! the repository in backticks, in Markdown and in comments of Rust and WIT.

mod markdown;

use std::collections::{BTreeMap, BTreeSet};

use crate::Result;
use crate::cargo::Workspace;
use crate::rust_text::{Part, RustText};
use crate::sources::{self, Finding, Source};
use markdown::{Kind, Mention};

/// Paths in backticks that no file has, each with the reason.
const ALLOWED: &[(&str, &str)] = &[("plugins/gift-card", "the reader of docs/sixth-service.md makes it")];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let paths = sources::paths(&workspace.root)?;
    let is_read = |path: &str| [".md", ".rs", ".wit"].iter().any(|end| path.ends_with(end));
    let files = sources::read(&workspace.root, is_read)?;
    sources::conclude("links", &findings(&paths, &files))
}

fn findings(paths: &[String], files: &[Source]) -> Vec<Finding> {
    let tree = Tree::new(paths, files);
    let mut findings = Vec::new();
    for file in files {
        // Lines and offsets stay, so a comment reads like Markdown.
        let comments = || RustText::new(&file.text).only(&[Part::Comment, Part::Doc]);
        let is_markdown = file.extension() == "md";
        let text = if is_markdown { file.text.clone() } else { comments() };
        for Mention { line, kind, target } in markdown::mentions(&text) {
            let problem = match kind {
                Kind::Link if is_markdown => tree.link_problem(&file.path, &target),
                // Links in Rust are for rustdoc.
                Kind::Link => None,
                Kind::Code => tree.path_problem(&file.path, &target),
            };
            findings.extend(problem.map(|text| Finding { path: file.path.clone(), line, text }));
        }
    }
    findings
}

/// All that a link can lead to.
struct Tree<'a> {
    /// Files and folders; the root is empty.
    paths: BTreeSet<&'a str>,
    /// The anchors of each Markdown file.
    anchors: BTreeMap<&'a str, BTreeSet<String>>,
}

impl<'a> Tree<'a> {
    fn new(paths: &'a [String], files: &'a [Source]) -> Self {
        let mut all = BTreeSet::from([""]);
        for path in paths {
            all.extend(path.match_indices('/').map(|(end, _)| &path[..end]));
            all.insert(path);
        }
        let documents = files.iter().filter(|file| file.extension() == "md");
        let anchors = documents.map(|file| (file.path.as_str(), markdown::anchors(&file.text)));
        Self { paths: all, anchors: anchors.collect() }
    }

    /// None: the link leads somewhere, or out of the repository.
    fn link_problem(&self, from: &str, target: &str) -> Option<String> {
        if target.contains("://") || target.starts_with("mailto:") {
            return None;
        }
        let (path, anchor) =
            target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
        let path = if path.is_empty() { Some(from.to_owned()) } else { join(folder(from), path) };
        let Some(path) = path.filter(|path| self.paths.contains(path.as_str())) else {
            return Some(format!("the link `{target}` leads to no file of the repository"));
        };
        let anchors = self.anchors.get(path.as_str())?;
        let anchor = anchor.filter(|anchor| !anchors.contains(*anchor))?;
        Some(format!("the link `{target}`: no heading of {path} has the anchor `#{anchor}`"))
    }

    /// None: the text names a file or a folder that exists, or is no path of the repository.
    fn path_problem(&self, from: &str, text: &str) -> Option<String> {
        if ALLOWED.iter().any(|(path, _)| *path == text) || !looks_like_path(text) {
            return None;
        }
        // After a colon stands the number of a line.
        let path = text.split(':').next().unwrap_or_default();
        let bases: Vec<&str> =
            [folder(from), ""].into_iter().filter(|base| self.has_first(base, path)).collect();
        let exists =
            |path: &String| bases.iter().any(|base| join(base, path).is_some_and(|path| self.matches(&path)));
        let missing =
            alternatives(path).into_iter().find(|path| !exists(path)).filter(|_| !bases.is_empty())?;
        Some(format!("`{missing}` is no file or folder of the repository"))
    }

    /// Returns whether the first part of a path exists in a folder.
    fn has_first(&self, base: &str, path: &str) -> bool {
        let first = path.split('/').next().unwrap_or_default();
        join(base, first).is_some_and(|path| !path.is_empty() && self.paths.contains(path.as_str()))
    }

    /// Returns whether a path exists. A part with an asterisk stands for anything, and ends the comparison.
    fn matches(&self, path: &str) -> bool {
        let known = path.find('*').map_or(path, |end| path[..end].rfind('/').map_or("", |end| &path[..end]));
        self.paths.contains(known)
    }
}

fn looks_like_path(text: &str) -> bool {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "_-./{},*:".contains(c);
    text.contains('/') && !text.starts_with('/') && !text.contains("::") && text.chars().all(is_of_path)
}

/// Returns the folder of a file; empty for the root.
fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Resolves a relative path. None: it leads out of the repository.
fn join(base: &str, path: &str) -> Option<String> {
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Writes out the braces: `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn alternatives(path: &str) -> Vec<String> {
    let braces = path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let Some((before, (inside, after))) = braces else { return vec![path.to_owned()] };
    inside.split(',').flat_map(|part| alternatives(&format!("{before}{part}{after}"))).collect()
}

#[cfg(test)]
mod tests;
