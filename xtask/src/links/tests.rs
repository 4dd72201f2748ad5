use super::findings;
use crate::sources::Source;

/// Checks one file in a small repository.
#[track_caller]
fn check(path: &str, text: &str, expected: &[&str]) {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let files = [source("docs/other.md", "# Other\n## Two words\n"), source(path, text)];
    let mut paths = ["README.md", "docs/other.md", "docs/tour.md", "host/src/a.rs", "host/src/edge/b.rs"]
        .map(str::to_owned);
    paths.sort();
    let found: Vec<String> = findings(&paths, &files).iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn links_that_lead_somewhere_are_no_findings() {
    check("README.md", "# Top\n[a](docs/other.md) [b](docs) [c](#top) [d](docs/other.md#two-words)", &[]);
    check("docs/tour.md", "[a](other.md) [b](../README.md) [c](/host/src/) [d](https://example.com/no)", &[]);
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let no_file = "README.md:2: the link `docs/no.md` leads to no file of the repository";
    check("README.md", "\n[a](docs/no.md)", &[no_file]);
    check(
        "docs/tour.md",
        "[a](../../x)",
        &["docs/tour.md:1: the link `../../x` leads to no file of the repository"],
    );
}

#[test]
fn anchors_without_a_heading_are_found() {
    let own = "README.md:1: the link `#top`: no heading of README.md has the anchor `#top`";
    check("README.md", "[a](#top)", &[own]);
    let other =
        "README.md:1: the link `docs/other.md#two`: no heading of docs/other.md has the anchor `#two`";
    check("README.md", "[a](docs/other.md#two)", &[other]);
}

#[test]
fn paths_in_backticks_exist() {
    check("README.md", "`host/src/a.rs:12` `host/src/` `host/src/{a.rs,edge/b.rs}` `host/*/a.rs`", &[]);
    check("docs/tour.md", "`host/src/edge` `text/plain` `saga/<id>` `host/src and more` `GET /docs/x`", &[]);
    check(
        "README.md",
        "`host/src/c.rs`",
        &["README.md:1: `host/src/c.rs` is no file or folder of the repository"],
    );
    check("README.md", "`host/{src,no}`", &["README.md:1: `host/no` is no file or folder of the repository"]);
}

#[test]
fn paths_in_comments_exist_and_those_in_strings_need_not() {
    check(
        "host/src/a.rs",
        "//! As in `edge/b.rs`, `host/src/a.rs`.\nconst A: &str = \"`host/no`\"; // [a](no)",
        &[],
    );
    let missing = "host/src/a.rs:2: `host/no` is no file or folder of the repository";
    check("host/src/a.rs", "\n// As in `host/no`.", &[missing]);
}
