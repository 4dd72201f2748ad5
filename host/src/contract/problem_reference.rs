//! docs/reference/problems.md, generated from [`ProblemCode::ALL`], and a body of each kind. `cargo xtask
//! bless` writes both anew.

use std::fmt::Write as _;

use expect_test::expect_file;
use serde_json::{Value, json};

use super::{Problem, ProblemCode, Violation};
use crate::model::{Json, Position, Rejection, Version};

const HEAD: &str = include_str!("problems_head.md");
const FOOT: &str = include_str!("problems_foot.md");

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut group = None;
    for code in ProblemCode::ALL {
        if group.replace(code.group()) != Some(code.group()) {
            let (heading, text) = code.group().documentation();
            let _ = write!(page, "\n## {heading}\n\n");
            if !text.is_empty() {
                let _ = write!(page, "{text}\n\n");
            }
            page += "| code | status | title | meaning | what to do |\n|---|---|---|---|---|\n";
        }
        let (name, status, title) = (code.name(), code.status().as_u16(), code.title());
        let _ = writeln!(page, "| `{name}` | {status} | {title} | {} | {} |", code.meaning(), code.advice());
    }
    page + FOOT
}

#[test]
fn a_snapshot_holds_the_reference_of_the_codes() {
    expect_file!["../../../docs/reference/problems.md"].assert_eq(&page());
}

#[test]
fn a_snapshot_holds_one_body_of_each_kind() {
    let violation = Violation { pointer: "/lines".to_owned(), message: "is missing".to_owned() };
    let rejection = Rejection {
        code: "insufficient-stock".to_owned(),
        message: "Only 2 left.".to_owned(),
        details: Some(Json::of(&json!({"available": 2})).unwrap()),
    };
    let behind = "The read model of report is at position 7, not yet at 9.".to_owned();
    let report = Json::of(&json!({"dry_run": false, "live": false, "services": [], "gates": []})).unwrap();
    let problems = [
        Problem::busy(),
        Problem::from(rejection),
        Problem::violations(
            ProblemCode::InvalidPayload,
            "The payload does not follow the command's schema.",
            vec![violation],
        ),
        Problem::version_mismatch(Some(Version::new(7)), Version::new(9)),
        Problem::version_mismatch(None, Version::START),
        Problem::behind(ProblemCode::ReadModelBehind, behind, Position::new(7)),
        Problem::new(ProblemCode::GateRefused, "Nothing was changed: it has no manifest.")
            .with_report(report),
        Problem::internal(),
    ];
    let lines: Vec<_> = problems.iter().map(|problem| String::from_utf8(problem.body()).unwrap()).collect();
    expect_file!["snapshots/problems.jsonl"].assert_eq(&(lines.join("\n") + "\n"));
    for line in lines {
        let body: super::ProblemBody = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_value(body).unwrap(), serde_json::from_str::<Value>(&line).unwrap());
    }
}
