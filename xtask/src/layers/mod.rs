//! `cargo xtask layers`: a module of the host uses only modules that stand in a row below its own.
//!
//! The table under `## Layers` in ARCHITECTURE.md is the only input. Unit tests obey it too: a test that
//! needs a module from above belongs to `host/tests`.

mod table;
mod uses;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::Result;
use crate::cargo::Workspace;
use crate::sources::{self, Finding, Source};
use table::{Row, Table};
use uses::Use;

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const MODULES: &str = "host/src/";

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let architecture = fs::read_to_string(workspace.root.join(ARCHITECTURE))?;
    let files = sources::read(&workspace.root, |path| path.starts_with(MODULES) && path.ends_with(".rs"))?;
    sources::conclude("layers", &findings(&architecture, &files))
}

fn findings(architecture: &str, files: &[Source]) -> Vec<Finding> {
    let at = |line, text: String| Finding { path: ARCHITECTURE.to_owned(), line, text };
    let table = match Table::parse(architecture) {
        Ok(table) => table,
        Err((line, problem)) => return vec![at(line, problem)],
    };
    let mut modules: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for file in files {
        if let Some(module) = module_of(&file.path) {
            modules.entry(module).or_default().push(file);
        }
    }
    let mut findings = Vec::new();
    for (module, row) in table.rows() {
        if !modules.contains_key(module) {
            findings.push(at(
                row.line,
                format!("there is no module `{module}` in {MODULES}: remove it from the table"),
            ));
        }
    }
    let mut arrows = Arrows::default();
    for (module, files) in &modules {
        match table.row(module) {
            Some(row) => files.iter().for_each(|file| arrows.add(module, row, file, &table)),
            None => findings
                .push(at(table.line, format!("the module `{module}` of {MODULES} is missing in the table"))),
        }
    }
    findings.extend(arrows.findings);
    findings.extend(pairs(&arrows.first_uses));
    findings
}

/// Returns the top-level module that a file of the host belongs to. `lib.rs` lists them and belongs to none.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix(MODULES)?;
    let first = inside.split_once('/').map_or(inside, |(folder, _)| folder);
    Some(first.strip_suffix(".rs").unwrap_or(first)).filter(|module| *module != "lib")
}

/// The uses of one module by another.
#[derive(Default)]
struct Arrows {
    findings: Vec<Finding>,
    /// By user and used module: the path and the line of the first use.
    first_uses: BTreeMap<(String, String), (String, usize)>,
}

impl Arrows {
    fn add(&mut self, module: &str, row: &Row, file: &Source, table: &Table) {
        for Use { line, module: used } in uses::uses(file) {
            if used == module {
                continue;
            }
            let problem = problem(module, row, &used, table.row(&used));
            let finding = |text| Finding { path: file.path.clone(), line, text };
            self.findings.extend(problem.map(finding));
            self.first_uses.entry((module.to_owned(), used)).or_insert_with(|| (file.path.clone(), line));
        }
    }
}

/// Returns the sentence about an arrow that goes anywhere but down.
fn problem(module: &str, row: &Row, used: &str, other: Option<&Row>) -> Option<String> {
    let Some(other) = other else {
        return Some(format!(
            "{module} -> {used}: the table has no module `{used}`. Name the module that has the item"
        ));
    };
    match other.number.cmp(&row.number) {
        Ordering::Greater => None,
        Ordering::Equal => Some(format!(
            "{module} -> {used} goes sideways: both stand in the row `{}`. Move what both need to a row \
             below, or give `{used}` a row of its own below `{module}`",
            row.name
        )),
        Ordering::Less => Some(format!(
            "{module} -> {used} goes up: `{}` stands above `{}`. Move what both need to a row below \
             `{module}`, or let `{used}` pass it in",
            other.name, row.name
        )),
    }
}

/// Returns a finding for each pair of modules that use each other.
fn pairs(first_uses: &BTreeMap<(String, String), (String, usize)>) -> BTreeSet<Finding> {
    let both_ways = first_uses.iter().filter_map(|((user, used), (path, line))| {
        let (back, back_line) = first_uses.get(&(used.clone(), user.clone()))?;
        let text = format!("{user} and {used} lean on each other; the way back is at {back}:{back_line}");
        (user < used).then(|| Finding { path: path.clone(), line: *line, text })
    });
    both_ways.collect()
}

#[cfg(test)]
mod tests;
