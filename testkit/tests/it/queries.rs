//! Tests of queries: errors that a test finds without asking for them, and the messages of failures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use kontor_testkit::{Event, Service, event, json};
use serde_json::Value;

type Happened = (&'static str, &'static str, Event);

fn unruly() -> Service {
    Service::from_file(Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fixtures/unruly.wasm"))
}

fn waited() -> Happened {
    ("beast", "b1", event("waited", json!({})))
}

/// Returns the failure message of a test that queries after some events and expects the number 7.
fn failure(events: &[Happened], query: &str, arguments: Value) -> String {
    let test = || {
        unruly().events(events.iter().cloned()).query(query, arguments).then(json!({"number": 7}));
    };
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("the test must fail");
    *panic.downcast::<String>().expect("a panic with a formatted message")
}

#[test]
fn what_is_as_expected_passes() {
    unruly().query("last", json!({})).then(json!({"number": null}));
    unruly().query("last", json!({"color": "red"})).then_rejected("invalid-arguments");
}

#[test]
fn every_error_is_reported() {
    let nothing = || json!({});
    let lost = ("beast", "b1", event("way-lost", json!({})));
    let broken = ("beast", "b1", event("waited", json!(7)));
    let table: [(&[Happened], &str, Value, &[&str]); 7] = [
        (
            &[],
            "last",
            nothing(),
            &["last {}: the answer is not as expected", r#"at "/number": expected 7, got null"#],
        ),
        (&[], "last", json!({"a": 1}), &["expected an answer, got the rejection invalid-arguments"]),
        (&[], "first", nothing(), &[r#"the manifest of unruly has no query "first""#]),
        (&[lost], "last", nothing(), &["way-lost of beast/b1 was given", "does not follow it"]),
        (&[broken], "last", nothing(), &["waited, version 1 of beast b1"]),
        (&[waited()], "last", nothing(), &["the answer to last {} is not as its schema says", "/number"]),
        (
            &[waited(), waited()],
            "last",
            nothing(),
            &["another answer than one by one", r#"at "/answer/number": expected 0, got 1"#],
        ),
    ];
    for (events, query, arguments, parts) in table {
        let failure = failure(events, query, arguments);
        for part in parts {
            assert!(failure.contains(part), "expected {part:?} in:\n{failure}");
        }
    }
}
