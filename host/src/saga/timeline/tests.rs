use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::{CommandId, CommitHash, Json, Meta, Position};

const ID: &str = "01990000-0000-7000-8000-000000000001";
const STARTED_MS: u64 = 1_000;

fn recorded(stream: &str, version: u64, name: &str, payload: &Value, time_ms: u64, actor: &str) -> Recorded {
    Recorded {
        position: Position::new(version),
        stream: StreamId::parse(stream).unwrap(),
        version: Version::new(version),
        index: 0,
        hash: CommitHash::GENESIS,
        name: name.into(),
        payload: Json::of(payload).unwrap(),
        meta: Arc::new(Meta {
            command_id: CommandId::from("c".to_owned()),
            command: "create".into(),
            fingerprint: 0,
            correlation_id: "r".into(),
            causation_id: None,
            digest: None,
            time_ms,
            actor: actor.into(),
            ..Meta::default()
        }),
    }
}

fn started() -> (&'static str, Value) {
    let trigger = json!({"stream": "order/o1", "version": 1});
    (
        "started",
        json!({"service": "order", "saga": "place-order", "digest": "00".repeat(32), "trigger": trigger}),
    )
}

/// Returns the fields of an entry about the command of a step, which took 2 attempts and 30 ms.
fn about(name: &str, rest: Value) -> Value {
    let mut fields = json!({
        "name": name, "action": {"stream": format!("product/{name}"), "command": "reserve", "payload": {}},
        "effort": {"attempts": 2, "took_ms": 30},
    });
    fields.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    fields
}

fn outcome() -> Value {
    json!({"outcome": {"version": 1, "events": [], "view": null}})
}

fn done(name: &str) -> (&'static str, Value) {
    ("step-done", about(name, outcome()))
}

fn undo(entry: &'static str, name: &str, rest: Value) -> (&'static str, Value) {
    let mut fields = json!({"name": name, "effort": {"attempts": 1, "took_ms": 5}});
    fields.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    (entry, fields)
}

fn no() -> Value {
    json!({"code": "no", "message": "No.", "details": {"available": 3}})
}

/// Returns the timeline of a journal whose entries are a tenth of a second apart, as JSON. The operator is
/// ada.
fn timeline(journal: &[(&str, Value)]) -> Value {
    let handle = SagaHandle::example(ID);
    let trigger = recorded("order/o1", 1, "order-created", &json!({}), STARTED_MS, "anonymous");
    let stream = format!("saga/{ID}");
    let entry = |(index, (name, payload)): (usize, &(&str, Value))| {
        let index = index as u64 + 1;
        recorded(&stream, index, name, payload, STARTED_MS + 100 * index, "ada")
    };
    let journal: Vec<_> = journal.iter().enumerate().map(entry).collect();
    let timeline = Timeline::of(&handle, &trigger, &journal).unwrap();
    let text = serde_json::to_string(&timeline).unwrap();
    assert_eq!(serde_json::from_str::<Timeline>(&text).unwrap(), timeline, "a client reads what was sent");
    serde_json::from_str(&text).unwrap()
}

/// Returns a line for each step: its name, kind and outcome, and the outcome of its undo.
fn course(timeline: &Value) -> Vec<String> {
    let steps = timeline["steps"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |step: &Value| {
        let parts = [&step["name"], &step["kind"], &step["outcome"], &step["undo"]["outcome"]];
        parts.map(text).join(" ")
    };
    steps.map(line).collect()
}

#[test]
fn a_saga_that_has_not_begun_has_its_trigger() {
    let expected = json!({
        "id": ID, "service": "order", "name": "place-order", "state": "running", "digest": null,
        "trigger": {"stream": "order/o1", "version": 1, "event": "order-created"},
        "started_by": {"actor": "anonymous"}, "started": "1970-01-01T00:00:01.000Z", "failed": [], "acts": [],
        "steps": [{
            "name": "trigger", "kind": "step", "stream": "order/o1", "command": "create", "outcome": "done",
            "time": "1970-01-01T00:00:01.000Z",
        }],
    });
    assert_eq!(timeline(&[]), expected);
}

#[test]
fn a_saga_that_completes_shows_what_each_step_took() {
    let (_, pivoted) = done("confirm");
    let request = json!({"service": "inventory", "query": "product", "arguments": {}});
    let effort = json!({"attempts": 1, "took_ms": 4});
    let answered = json!({"name": "price", "request": request, "answer": {"Ok": 7}, "effort": effort});
    let shown = timeline(&[
        started(),
        done("a"),
        ("query-answered", answered),
        ("pivoted", pivoted),
        ("completed", json!({})),
    ]);
    assert_eq!((&shown["state"], &shown["digest"]), (&json!("completed"), &json!("00".repeat(32))));
    assert_eq!(shown["ended"], "1970-01-01T00:00:01.500Z");
    assert_eq!(
        course(&shown),
        ["trigger step done -", "a step done -", "price query answered -", "confirm pivot done -"]
    );
    let a = json!({
        "name": "a", "kind": "step", "stream": "product/a", "command": "reserve", "outcome": "done",
        "time": "1970-01-01T00:00:01.200Z", "attempts": 2, "took_ms": 30,
    });
    assert_eq!(shown["steps"][1], a);
    assert_eq!(
        (&shown["steps"][2]["service"], &shown["steps"][2]["query"]),
        (&json!("inventory"), &json!("product"))
    );
}

#[test]
fn a_rejection_is_shown_with_its_details_and_every_step_with_its_undo() {
    let shown = timeline(&[
        started(),
        done("a"),
        ("step-refused", about("b", json!({"rejection": no()}))),
        ("unwinding", json!({"reason": no()})),
        undo("undone", "a", json!({})),
        undo("undone", "trigger", json!({})),
        ("compensated", json!({})),
    ]);
    assert_eq!(course(&shown), ["trigger step done done", "a step done done", "b step refused -"]);
    assert_eq!((&shown["steps"][2]["rejection"], &shown["reason"]), (&no(), &no()));
    let undo = json!({"outcome": "done", "time": "1970-01-01T00:00:01.500Z", "attempts": 1, "took_ms": 5});
    assert_eq!(shown["steps"][1]["undo"], undo);
}

/// A saga whose step `b` failed, and could not be undone either.
fn stuck() -> Vec<(&'static str, Value)> {
    vec![
        started(),
        done("a"),
        ("step-failed", about("b", json!({"error": "down"}))),
        ("unwinding", json!({"reason": no()})),
        undo("undo-failed", "b", json!({"error": "still down"})),
        undo("undone", "a", json!({})),
        undo("undone", "trigger", json!({})),
        ("parked", json!({"why": "not undone: b"})),
    ]
}

#[test]
fn an_undo_that_fails_does_not_hide_the_others() {
    let shown = timeline(&stuck());
    assert_eq!(course(&shown), ["trigger step done done", "a step done done", "b step failed failed"]);
    assert_eq!((&shown["state"], &shown["why"]), (&json!("parked"), &json!("not undone: b")));
    assert_eq!(shown["failed"], json!(["b"]));
    let b = &shown["steps"][2];
    assert_eq!((&b["error"], &b["undo"]["error"]), (&json!("down"), &json!("still down")));
    assert_eq!(shown.get("ended"), None);
}

#[test]
fn acts_of_operators_are_listed_and_all_attempts_are_counted() {
    let mut journal = stuck();
    journal.extend([("resumed", json!({})), undo("undone", "b", json!({})), ("compensated", json!({}))]);
    let shown = timeline(&journal);
    let undo = json!({"outcome": "done", "time": "1970-01-01T00:00:02.000Z", "attempts": 2, "took_ms": 10});
    assert_eq!(shown["steps"][2]["undo"], undo);
    let retry = json!([{"time": "1970-01-01T00:00:01.900Z", "actor": "ada", "act": "retry"}]);
    assert_eq!(shown["acts"], retry);
    assert_eq!((shown.get("why"), &shown["failed"]), (None, &json!([])));
}

#[test]
fn a_skipped_undo_says_why() {
    let mut journal = stuck();
    let skipped = json!({"name": "b", "reason": "refunded by hand"});
    journal.extend([("skipped", skipped), ("compensated", json!({}))]);
    let shown = timeline(&journal);
    let undo = json!({
        "outcome": "skipped", "time": "1970-01-01T00:00:01.900Z", "attempts": 1, "took_ms": 5,
        "error": "still down", "skipped_because": "refunded by hand",
    });
    assert_eq!((&shown["steps"][2]["outcome"], &shown["steps"][2]["undo"]), (&json!("failed"), &undo));
    let skip = json!([{
        "time": "1970-01-01T00:00:01.900Z", "actor": "ada", "act": "skip", "step": "b",
        "reason": "refunded by hand",
    }]);
    assert_eq!((&shown["acts"], &shown["state"]), (&skip, &json!("compensated")));
}

#[test]
fn after_the_pivot_a_failed_step_is_skipped_or_done_by_a_retry() {
    let (_, pivoted) = done("confirm");
    let failed = ("step-failed", about("release", json!({"error": "down"})));
    let journal = vec![started(), ("pivoted", pivoted), failed, ("parked", json!({"why": "down"}))];
    let skipped = ("skipped", json!({"name": "release", "reason": "scrapped"}));
    let resumed = ("resumed", json!({}));
    for (acts, outcome, attempts) in [
        (vec![skipped], "skipped", 2),
        (vec![resumed.clone(), done("release")], "done", 4),
        (vec![resumed], "failed", 2),
    ] {
        let shown = timeline(&[journal.clone(), acts].concat());
        let step = &shown["steps"][2];
        assert_eq!((&step["name"], &step["outcome"]), (&json!("release"), &json!(outcome)));
        assert_eq!(step["attempts"], attempts, "{outcome}");
    }
}

#[test]
fn a_saga_that_an_operator_has_resolved_says_why_it_was_parked() {
    let shown = timeline(&[stuck(), vec![("resolved", json!({"reason": "seen to"}))]].concat());
    assert_eq!((&shown["state"], &shown["why"]), (&json!("resolved"), &json!("not undone: b")));
    assert_eq!(shown["acts"][0]["reason"], "seen to");
}

#[test]
fn a_divergence_shows_both_sides_until_it_is_retried() {
    let divergence = json!({"journaled": {"command": "reserve"}, "asked": null});
    let parked = ("parked", json!({"why": "the run diverged", "divergence": divergence}));
    let journal = vec![started(), done("a"), parked];
    assert_eq!(timeline(&journal)["divergence"], divergence);
    let again = [journal, vec![("resumed", json!({}))]].concat();
    assert_eq!(timeline(&again).get("divergence"), None);
}

#[test]
fn a_saga_parked_by_a_fault_says_so_until_it_continues() {
    let by_fault = vec![started(), ("parked", json!({"why": "order trapped", "by_fault": true}))];
    assert_eq!(timeline(&by_fault)["by_fault"], true);
    let moved = ("moved", json!({"digest": "11".repeat(32)}));
    let again = timeline(&[by_fault, vec![moved, ("resumed", json!({}))]].concat());
    assert_eq!((again.get("by_fault"), again.get("why"), &again["state"]), (None, None, &json!("running")));
}

#[test]
fn a_step_without_a_compensation_is_not_shown_as_undone() {
    let shown = timeline(&[
        started(),
        done("a"),
        ("unwinding", json!({"reason": no()})),
        ("not-undone", json!({"name": "a"})),
        undo("undone", "trigger", json!({})),
        ("compensated", json!({})),
    ]);
    assert_eq!(course(&shown), ["trigger step done done", "a step done not-compensable"]);
    assert_eq!(shown["steps"][1]["undo"].get("attempts"), None);
}

#[test]
fn waits_say_for_what_and_how_they_ended() {
    let sleep = ("waiting", json!({"name": "s", "wait": {"sleep": {"duration_ms": 9}}, "until_ms": 5_000}));
    let event = json!({"event": {"stream": "payment/o1", "events": ["payment-authorized"], "timeout_ms": 9}});
    let event = ("waiting", json!({"name": "w", "wait": event, "until_ms": 6_000}));
    let awoken = |name: &str, event: Option<u64>| ("awoken", json!({"name": name, "event": event}));

    let asleep = timeline(&[started(), sleep.clone()]);
    let expected = json!({
        "name": "s", "kind": "sleep", "until": "1970-01-01T00:00:05.000Z", "outcome": "waiting",
        "time": "1970-01-01T00:00:01.200Z",
    });
    assert_eq!((&asleep["state"], &asleep["steps"][1]), (&json!("waiting"), &expected));

    for (seen, outcome) in [(Some(3), "done"), (None, "timed-out")] {
        let journal = [started(), sleep.clone(), awoken("s", None), event.clone(), awoken("w", seen)];
        let shown = timeline(&journal);
        assert_eq!(
            (&shown["steps"][1]["outcome"], &shown["steps"][1]["took_ms"]),
            (&json!("done"), &json!(100))
        );
        assert_eq!(
            (&shown["steps"][2]["outcome"], &shown["steps"][2]["kind"]),
            (&json!(outcome), &json!("wait"))
        );
        assert_eq!(shown["steps"][2]["events"], json!(["payment-authorized"]));
    }
}
