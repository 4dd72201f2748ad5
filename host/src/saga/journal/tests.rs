use serde_json::json;
use strum::VariantNames as _;

use super::super::entry::{AttemptStats, Trigger};
use super::*;
use crate::model::{StreamId, event_of, variant_of};

const STATS: AttemptStats = AttemptStats { attempts: 1, took_ms: 2 };

fn action() -> Action {
    let stream = StreamId::new("product", "p1").unwrap();
    Action { stream, command: "reserve".to_owned(), payload: Json::empty_object() }
}

fn rejection() -> Rejection {
    Rejection::new("no", "No.")
}

fn started() -> Entry {
    let trigger = Trigger { stream: StreamId::new("order", "o1").unwrap(), version: Version::new(1) };
    let digest = Digest::of(b"");
    Entry::Started { service: "order".into(), saga: "place-order".into(), digest, trigger }
}

fn done(name: &str) -> Entry {
    let outcome = Outcome { version: Version::new(1), view: None };
    Entry::StepDone { name: name.to_owned(), action: action(), outcome, effort: STATS }
}

fn rejected(name: &str) -> Entry {
    let rejection = rejection();
    Entry::StepRejected { name: name.to_owned(), action: action(), rejection, effort: STATS }
}

fn failed(name: &str) -> Entry {
    let error = "down".to_owned();
    Entry::StepFailed { name: name.to_owned(), action: action(), error, effort: STATS }
}

fn pivoted(name: &str) -> Entry {
    let outcome = Outcome { version: Version::new(1), view: None };
    Entry::Pivoted { name: name.to_owned(), action: action(), outcome, effort: STATS }
}

fn answered(name: &str) -> Entry {
    let request = Request { service: "s".into(), query: "q".into(), arguments: Json::empty_object() };
    Entry::QueryAnswered { name: name.to_owned(), request, answer: Err(rejection()), effort: STATS }
}

fn waiting(name: &str) -> Entry {
    Entry::Waiting { name: name.to_owned(), wait: Wait::Sleep { duration_ms: 5 }, until_ms: 7 }
}

fn awoken(name: &str) -> Entry {
    Entry::Awoken { name: name.to_owned(), event: None }
}

fn unwinding() -> Entry {
    Entry::Unwinding { reason: rejection() }
}

fn undone(name: &str) -> Entry {
    Entry::Undone { name: name.to_owned(), effort: STATS }
}

fn undo_failed(name: &str) -> Entry {
    Entry::UndoFailed { name: name.to_owned(), error: "down".to_owned(), effort: STATS }
}

fn continued() -> Entry {
    Entry::ContinuedAsNew { progress: Json::empty_object() }
}

fn parked() -> Entry {
    Entry::parked("why")
}

fn skipped(name: &str) -> Entry {
    Entry::Skipped { name: name.to_owned(), reason: "why not".to_owned() }
}

fn resolved() -> Entry {
    Entry::Resolved { reason: "done by hand".to_owned() }
}

fn fold(entries: &[Entry]) -> Result<Saga, IllegalEntry> {
    let mut saga = None;
    for entry in entries {
        saga = Some(next_state(saga, entry)?);
    }
    saga.ok_or(IllegalEntry { entry: "", state: "not started" })
}

/// One entry of each kind, about the step `a` where the step must be known, and `new` where it must not.
fn every_entry() -> Vec<Entry> {
    vec![
        started(),
        done("new"),
        rejected("new"),
        failed("new"),
        pivoted("new"),
        answered("new"),
        continued(),
        waiting("new"),
        awoken("a"),
        unwinding(),
        undone("a"),
        Entry::NotUndone { name: "a".to_owned() },
        undo_failed("a"),
        parked(),
        Entry::Taken { node: "other".into() },
        Entry::Moved { digest: Digest::of(b"new") },
        Entry::Resumed { reason: None },
        skipped("a"),
        resolved(),
        Entry::Completed {},
        Entry::Compensated {},
    ]
}

const STEPS: [&str; 7] =
    ["step-done", "step-failed", "query-answered", "waiting", "parked", "taken", "moved"];
const BEFORE_PIVOT: [&str; 3] = ["step-refused", "pivoted", "unwinding"];

#[test]
fn no_entry_is_left_out_and_each_is_stored_under_its_name() {
    let names: Vec<&str> = every_entry().iter().map(Entry::name).collect();
    assert_eq!(names, Entry::VARIANTS);
    for entry in every_entry() {
        assert_eq!(event_of(&entry).unwrap().name, entry.name());
    }
}

#[test]
fn the_name_of_a_state_is_its_json_form() {
    for state in SagaState::ALL {
        assert_eq!(json!(state), state.as_str());
        assert_eq!(SagaState::parse(state.as_str()), Some(*state));
    }
    assert_eq!(SagaState::parse("Running"), None);
}

#[test]
fn every_entry_in_every_state() {
    let (a, completed, compensated) = (done("a"), Entry::Completed {}, Entry::Compensated {});
    let running = [&STEPS[..], &BEFORE_PIVOT].concat();
    let completing = |allowed: &[&'static str]| [allowed, &["completed", "continued-as-new"]].concat();
    let all_undone = vec![started(), a.clone(), unwinding(), undone("a"), undone(STEP_ZERO)];
    let table: Vec<(&str, Vec<Entry>, Vec<&str>)> = vec![
        ("not started", vec![], vec!["started"]),
        ("running", vec![started(), a.clone()], completing(&running)),
        ("failed", vec![started(), failed("a")], running.clone()),
        ("pivoted", vec![started(), a.clone(), pivoted("p")], completing(&STEPS)),
        ("failed after the pivot", vec![started(), pivoted("p"), failed("a")], STEPS.to_vec()),
        ("waiting", vec![started(), waiting("a")], vec!["awoken", "parked", "taken", "moved"]),
        ("waiting for another", vec![started(), waiting("b")], vec!["parked", "taken", "moved"]),
        ("awoken", vec![started(), waiting("a"), awoken("a")], completing(&running)),
        (
            "unwinding",
            vec![started(), a.clone(), unwinding()],
            vec!["undone", "not-undone", "undo-failed", "parked", "taken"],
        ),
        (
            "undo failed",
            vec![started(), a.clone(), unwinding(), undo_failed("a")],
            vec!["undone", "not-undone", "undo-failed", "parked", "taken"],
        ),
        ("all undone", all_undone.clone(), vec!["compensated", "parked", "taken"]),
        ("parked", vec![started(), a.clone(), parked()], vec!["resumed", "resolved", "taken", "moved"]),
        (
            "parked by a failed step",
            vec![started(), pivoted("p"), failed("a"), parked()],
            vec!["resumed", "skipped", "resolved", "taken", "moved"],
        ),
        (
            "parked by a failed undo",
            vec![started(), a.clone(), unwinding(), undo_failed("a"), parked()],
            vec!["resumed", "skipped", "resolved", "taken"],
        ),
        ("completed", vec![started(), a.clone(), completed], vec![]),
        ("compensated", [&all_undone[..], &[compensated]].concat(), vec![]),
        ("resolved", vec![started(), parked(), resolved()], vec![]),
    ];
    for (label, history, allowed) in table {
        fold(&history)
            .map(|_| ())
            .or_else(|error| if history.is_empty() { Ok(()) } else { Err(error) })
            .unwrap();
        for entry in every_entry() {
            let legal = fold(&[&history[..], std::slice::from_ref(&entry)].concat()).is_ok();
            assert_eq!(legal, allowed.contains(&entry.name()), "{} in {label}", entry.name());
        }
    }
}

fn to_undo(entries: &[Entry]) -> Vec<String> {
    fold(entries).unwrap().to_undo().map(str::to_owned).collect()
}

#[test]
fn undo_runs_in_reverse_and_ends_with_step_zero() {
    let history = [started(), done("a"), done("b"), rejected("c"), unwinding(), undone("b")];
    assert_eq!(to_undo(&history), ["a", STEP_ZERO]);
}

#[test]
fn a_step_that_failed_may_have_had_an_effect_unless_it_was_rejected_later() {
    assert_eq!(to_undo(&[started(), done("a"), failed("b"), unwinding()]), ["b", "a", STEP_ZERO]);
    assert_eq!(to_undo(&[started(), failed("b"), done("b"), done("c"), unwinding()]), ["c", "b", STEP_ZERO]);
    assert_eq!(to_undo(&[started(), failed("b"), rejected("b"), unwinding()]), [STEP_ZERO]);
}

#[test]
fn a_run_that_continues_as_new_leaves_nothing_to_undo_and_its_names_free() {
    let first = [started(), done("a"), pivoted("p"), continued()];
    assert_eq!(to_undo(&[&first[..], &[done("b"), unwinding()]].concat()), ["b"]);
    let second = fold(&[&first[..], &[done("a")]].concat()).unwrap();
    assert_eq!(second.unique("a"), "1/a");
    assert_eq!(fold(&first[..2]).unwrap().unique("a"), "a");
    assert!(fold(&[started(), continued()]).is_err(), "it has done nothing");
}

#[test]
fn a_name_is_used_once() {
    for again in [done("a"), rejected("a"), failed("a"), pivoted("a"), answered("a"), waiting("a")] {
        assert!(fold(&[started(), done("a"), again.clone()]).is_err(), "{again:?}");
        assert!(fold(&[started(), waiting("a"), awoken("a"), again]).is_err());
    }
    assert!(fold(&[started(), done(STEP_ZERO)]).is_err());
}

#[test]
fn a_parked_saga_goes_on_where_it_was() {
    let forward = [started(), pivoted("p"), failed("a"), parked(), Entry::Resumed { reason: None }];
    assert_eq!(fold(&forward).unwrap().state, SagaState::Running);
    let back = [started(), done("a"), unwinding(), undo_failed("a"), undone(STEP_ZERO), parked()];
    let resumed = [&back[..], &[Entry::Resumed { reason: None }]].concat();
    assert_eq!(fold(&resumed).unwrap().state, SagaState::Unwinding);
    assert_eq!(to_undo(&resumed), ["a"]);
    let asleep = [started(), waiting("a"), parked(), Entry::Resumed { reason: None }];
    assert_eq!(fold(&asleep).unwrap().state, SagaState::Waiting);
}

#[test]
fn a_saga_parked_by_a_fault_is_mendable_until_it_resumes() {
    let by_fault = Entry::parked_by_fault("why");
    let mendable = |entries: &[Entry]| fold(entries).unwrap().is_mendable();
    assert!(mendable(&[started(), by_fault.clone()]));
    assert!(!mendable(&[started(), parked()]));
    assert!(!mendable(&[started(), by_fault.clone(), Entry::Resumed { reason: None }]));
    assert!(!mendable(&[started(), by_fault, Entry::Resumed { reason: None }, parked()]));
}

/// A journal of an older host has events in its outcomes, and may say undone where nothing was to undo.
#[test]
fn the_entries_of_an_older_host_are_read() {
    let action = r#""action":{"stream":"product/p1","command":"reserve","payload":{}}"#;
    let outcome = r#""outcome":{"version":1,"events":[{"name":"stock-reserved","payload":{}}],"view":null}"#;
    let effort = r#""effort":{"attempts":1,"took_ms":2}"#;
    let wait = r#"{"event":{"stream":"payment/o1","events":["paid"],"timeout_ms":9}}"#;
    for (name, payload) in [
        ("step-done", format!(r#"{{"name":"a",{action},{outcome},{effort}}}"#)),
        ("waiting", format!(r#"{{"name":"w","wait":{wait},"until_ms":7}}"#)),
        ("parked", r#"{"why":"why"}"#.to_owned()),
    ] {
        let entry = variant_of::<Entry>(name, &Json::parse(payload).unwrap());
        assert!(entry.is_ok(), "{name}: {entry:?}");
    }
}

#[test]
fn what_is_skipped_counts_as_done_or_as_undone() {
    let forward = [started(), pivoted("p"), failed("a"), parked(), skipped("a")];
    let saga = fold(&forward).unwrap();
    let answer = Ok(super::skipped());
    assert_eq!(saga.answered["a"], Answered::Step { action: action(), answer });
    let back =
        [started(), done("a"), unwinding(), undo_failed("a"), undone(STEP_ZERO), parked(), skipped("a")];
    assert_eq!(to_undo(&back), Vec::<String>::new());
}

#[test]
fn entries_survive_the_log() {
    for entry in every_entry() {
        let event = event_of(&entry).unwrap();
        assert_eq!(variant_of::<Entry>(event.name.as_str(), &event.payload).unwrap(), entry);
    }
}

/// The JSON texts of a journal are read by every later version of the host.
#[test]
fn the_stored_form_of_an_entry_does_not_change() {
    let outcome = Outcome { version: Version::new(3), view: Some(Json::empty_object()) };
    let step = Entry::StepDone { name: "a".to_owned(), action: action(), outcome, effort: STATS };
    let stream = StreamId::new("payment", "o1").unwrap();
    let events = vec!["payment-authorized".to_owned()];
    let wait = Wait::Event { stream, events, timeout_ms: 9, after: None };
    let wait = Entry::Waiting { name: "w".to_owned(), wait, until_ms: 7 };
    let reserve = r#""action":{"stream":"product/p1","command":"reserve","payload":{}}"#;
    let effort = r#""effort":{"attempts":1,"took_ms":2}"#;
    let no = r#"{"code":"no","message":"No."}"#;
    let done = r#""outcome":{"version":3,"view":{}}"#;
    let request = r#""request":{"service":"s","query":"q","arguments":{}}"#;
    let event = r#"{"event":{"stream":"payment/o1","events":["payment-authorized"],"timeout_ms":9}}"#;
    for (entry, name, payload) in [
        (step, "step-done", format!(r#"{{"name":"a",{reserve},{done},{effort}}}"#)),
        (rejected("a"), "step-refused", format!(r#"{{"name":"a",{reserve},"rejection":{no},{effort}}}"#)),
        (
            answered("a"),
            "query-answered",
            format!(r#"{{"name":"a",{request},"answer":{{"Err":{no}}},{effort}}}"#),
        ),
        (wait, "waiting", format!(r#"{{"name":"w","wait":{event},"until_ms":7}}"#)),
        (parked(), "parked", r#"{"why":"why"}"#.to_owned()),
        (Entry::parked_by_fault("why"), "parked", r#"{"why":"why","by_fault":true}"#.to_owned()),
        (Entry::Resumed { reason: None }, "resumed", "{}".to_owned()),
    ] {
        let event = event_of(&entry).unwrap();
        assert_eq!((event.name.as_str(), event.payload.as_str()), (name, payload.as_str()));
    }
}
