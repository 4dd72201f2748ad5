use super::findings;
use super::uses::{Use, uses};
use crate::sources::Source;

const ARCHITECTURE: &str = "\
# Map

## Layers

Top to bottom.

| layer | modules |
|---|---|
| the binary | `cli` · `main` |
| the edge | `edge` |
| the core | `saga`, `query` |
| the words | `model` |

## Other

| layer | modules |
|---|---|
| no | `no` |
";

fn source(path: &str, text: &str) -> Source {
    Source { path: format!("host/src/{path}"), text: text.to_owned() }
}

/// Checks a tree of all modules of the table in which one file has another text.
#[track_caller]
fn check(path: &str, text: &str, expected: &[&str]) {
    let paths = ["lib.rs", "main.rs", "cli/mod.rs", "edge/mod.rs", "saga/mod.rs", "query.rs", "model.rs"];
    let mut files: Vec<Source> = paths.map(|path| source(path, "")).into();
    files.retain(|file| file.path != format!("host/src/{path}"));
    files.push(source(path, text));
    let found: Vec<String> = findings(ARCHITECTURE, &files).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn arrows_down_and_within_a_module_are_allowed() {
    check("edge/mod.rs", "use crate::{edge::x, model::{A, B}, saga};\nfn f() { crate::query::g() }", &[]);
    check("cli/mod.rs", "use kontor::edge::serve;\nuse crate::cli::style;", &[]);
    check("edge/http.rs", "use super::routes;", &[]);
}

#[test]
fn an_arrow_up_is_found() {
    let up = "host/src/saga/mod.rs:2: saga -> edge goes up: `the edge` stands above `the core`";
    check("saga/mod.rs", "use crate::model::A;\nuse crate::edge::B;", &[up]);
    check("saga/mod.rs", "\nfn f() -> crate::edge::B { }", &[up]);
    check("saga/mod.rs", "\nuse crate::{model::A, edge::{B, C}};", &[up]);
    check("model.rs", "use super::saga::A;", &["host/src/model.rs:1: model -> saga goes up"]);
}

#[test]
fn an_arrow_sideways_is_found() {
    check(
        "query.rs",
        "use crate::saga;",
        &["host/src/query.rs:1: query -> saga goes sideways: both stand in the row"],
    );
}

#[test]
fn tests_obey_too() {
    let text = "#[cfg(test)]\nmod tests {\n    use super::super::edge::A;\n}";
    check("query.rs", text, &["host/src/query.rs:3: query -> edge goes up"]);
}

#[test]
fn names_in_comments_and_strings_are_no_use() {
    check("saga/mod.rs", "//! See [`crate::edge`].\nconst A: &str = \"crate::edge\";", &[]);
}

#[test]
fn a_module_that_the_table_lacks_is_found() {
    check(
        "deploy/mod.rs",
        "",
        &["ARCHITECTURE.md:7: the module `deploy` of host/src/ is missing in the table"],
    );
    check(
        "edge/mod.rs",
        "use crate::Word;",
        &["host/src/edge/mod.rs:1: edge -> Word: the table has no module `Word`"],
    );
    check(
        "edge/mod.rs",
        "use crate::*;",
        &["host/src/edge/mod.rs:1: edge -> *: the table has no module `*`"],
    );
}

#[test]
fn a_module_that_only_the_table_has_is_found() {
    let files = ["main.rs", "cli/mod.rs", "edge.rs", "saga.rs", "query.rs"].map(|path| source(path, ""));
    let found: Vec<String> = findings(ARCHITECTURE, &files).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["ARCHITECTURE.md:12: there is no module `model` in host/src/: remove it from the table"]
    );
}

#[test]
fn a_table_is_needed_and_names_each_module_once() {
    let problem = |markdown: &str| findings(markdown, &[])[0].to_string();
    assert!(problem("# Map\n").contains("no table `| layer | modules |` under `## Layers`"));
    assert!(problem("## Layers\n## Other\n| layer | modules |\n|---|---|\n").contains("no table"));
    let twice = "## Layers\n| layer | modules |\n|---|---|\n| a | `saga` |\n| b | `saga` |\n";
    assert_eq!(problem(twice), "ARCHITECTURE.md:5: the module `saga` stands in two rows");
}

#[test]
fn modules_that_use_each_other_are_a_pair() {
    let mut files: Vec<Source> =
        ["main.rs", "cli.rs", "query.rs", "model.rs"].map(|path| source(path, "")).into();
    files.push(source("edge.rs", "\nuse crate::saga::A;"));
    files.push(source("saga.rs", "use crate::edge::A;\nuse crate::edge::B;"));
    let found: Vec<String> = findings(ARCHITECTURE, &files).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 3, "{found:#?}");
    let pair = "host/src/edge.rs:2: edge and saga lean on each other; the way back is at host/src/saga.rs:1";
    assert_eq!(found[2], pair);
}

#[track_caller]
fn check_uses(path: &str, text: &str, expected: &[(usize, &str)]) {
    let found = uses(&source(path, text));
    let expected: Vec<Use> =
        expected.iter().map(|(line, module)| Use { line: *line, module: (*module).to_owned() }).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn groups_are_read_to_their_end_over_several_lines() {
    let text = "use crate::{\n    a::{b, c::{d, e}},\n    f,\n    g as h,\n};\nuse crate::i;";
    check_uses("x.rs", text, &[(2, "a"), (3, "f"), (4, "g"), (6, "i")]);
    check_uses("x.rs", "use {crate::a::b, std::fmt};", &[(1, "a")]);
    check_uses("x.rs", "pub(in crate::a) fn f() { $crate::b!() }", &[(1, "a"), (1, "b")]);
}

#[test]
fn the_library_is_named_by_the_binary_only() {
    check_uses(
        "cli/x.rs",
        "use kontor::{a, b::c};\nfn f() { ::kontor::d::e() }",
        &[(1, "a"), (1, "b"), (2, "d")],
    );
    check_uses("main.rs", "use kontor::a;", &[(1, "a")]);
    check_uses("x.rs", "use kontor::a;\nuse other::kontor::b;", &[]);
    check_uses("cli/x.rs", "use kontor_sdk::a;\nuse other::kontor::b;", &[]);
}

#[test]
fn super_leads_out_of_a_module_as_deep_as_its_file() {
    check_uses("a.rs", "use super::b;", &[(1, "b")]);
    check_uses("a/mod.rs", "use super::{b, c};", &[(1, "b"), (1, "c")]);
    check_uses("a/d.rs", "use super::b;\nuse super::super::c;", &[(2, "c")]);
    check_uses("a/d.rs", "mod e { use super::super::super::c; }\nfn f() { super::g() }", &[(1, "c")]);
    check_uses("a/d.rs", "use self::super::super::c;", &[(1, "c")]);
}
