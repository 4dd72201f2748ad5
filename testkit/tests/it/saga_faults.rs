//! Sagas whose own code is at fault: they park with the sentence, undo nothing, and continue on a component
//! that mends it.

use std::fs;
use std::path::Path;

use kontor::model::{Digest, SagaId};
use kontor::saga::Act;
use kontor_testkit::host::{Host, Services, Site};
use serde_json::{Value, json};

use crate::beasts::{RUNS, beast, beasts, begin, end, entries, parked, until, waits, wasm};

fn wild() -> Services {
    beasts(&json!({}))
}

fn tame() -> Services {
    beasts(&json!({"tame": true}))
}

/// Returns the bytes of another version of the fixture, which differs in a text.
fn patched() -> Vec<u8> {
    let (old, new) = (b"wake-up", b"get-up!");
    let mut wasm = wasm();
    let places: Vec<usize> = (0..wasm.len() - old.len()).filter(|at| wasm[*at..].starts_with(old)).collect();
    assert!(!places.is_empty(), "the text is in the component");
    for at in places {
        wasm[at..at + new.len()].copy_from_slice(new);
    }
    wasm
}

/// Returns another version of the fixture. `tame`: true if its sagas do not panic.
fn next(tame: bool) -> Services {
    Services::of(vec![patched()], &json!({ "unruly": { "tame": tame } }), RUNS)
}

/// Returns a service whose sagas start on the events of the beasts.
fn eavesdropper() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fixtures/eavesdropper.wasm")).unwrap()
}

fn stumble(host: &Host, over: &str) -> SagaId {
    begin(host, "wolf", "stumble", json!({ "over": over }))
}

/// Returns a saga's timeline as the operator's tools get it.
fn timeline(host: &Host, saga: &SagaId) -> Value {
    json!(host.run(host.sagas().timeline(saga)).expect("a timeline"))
}

#[test]
fn a_saga_whose_own_code_is_at_fault_parks_with_the_sentence_and_undoes_nothing() {
    let name = "is no name for a step: 1 to 200 bytes without a slash or a control character";
    let table = [
        ("panic", "unruly trapped in run stumble: a stone lies in the way", ["started", "step-done"]),
        ("late-panic", "unruly trapped in run stumble: a stone lies in the way", ["started", "pivoted"]),
        ("step-zero", name, ["started", "step-done"]),
        ("weight", "the command of a step: 307", ["started", "step-done"]),
        ("id", "an id has 1 to 128 characters", ["started", "step-done"]),
        ("complaint", "a rejection's message has more than", ["started", "step-done"]),
    ];
    for (over, why, before) in table {
        let host = Site::new().start(&wild());
        let wolf = stumble(&host, over);
        let parked = parked(&host, &wolf);
        assert!(parked["why"].as_str().unwrap().contains(why), "{over}: {parked}");
        assert_eq!(entries(&host, &wolf), [&before[..], &["parked"]].concat(), "{over}");
        assert_eq!([waits(&host, "wolf-a"), waits(&host, "wolf-c"), waits(&host, "wolf-end")], [1, 0, 0]);
        assert!(timeline(&host, &wolf)["why"].as_str().unwrap().contains(why));
    }
}

#[test]
fn a_second_pivot_is_not_sent() {
    let host = Site::new().start(&wild());
    let wolf = stumble(&host, "two-pivots");
    assert_eq!(parked(&host, &wolf)["why"], "the run has a second pivot, two");
    assert_eq!(entries(&host, &wolf), ["started", "step-done", "pivoted", "parked"]);
    assert_eq!([waits(&host, "wolf-b"), waits(&host, "wolf-c")], [1, 0]);
}

#[test]
fn a_saga_that_cannot_read_its_trigger_parks() {
    let host = Site::new().start(&wild());
    let wolf = begin(&host, "wolf", "mumble", json!({}));
    let parked = parked(&host, &wolf);
    assert!(parked["why"].as_str().unwrap().contains("missing field `words`"), "{parked}");
    assert_eq!(entries(&host, &wolf), ["started", "parked"]);
}

#[test]
fn a_saga_parked_by_a_fault_continues_on_the_next_component_that_replays_it() {
    let site = Site::new();
    let host = site.start(&wild());
    let wolves = ["panic", "late-panic"].map(|over| stumble(&host, over));
    wolves.iter().for_each(|wolf| drop(parked(&host, wolf)));
    host.stop();

    // Another version with the same fault changes nothing.
    let host = site.start(&next(false));
    for wolf in &wolves {
        assert_eq!(end(&host, wolf), "parked");
    }
    let before = wolves.each_ref().map(|wolf| entries(&host, wolf));
    host.stop();

    let host = site.start(&next(true));
    for (wolf, mut expected) in wolves.iter().zip(before) {
        until(&host, wolf, "completed");
        expected.extend(["moved", "resumed", "step-done", "completed"].map(str::to_owned));
        assert_eq!(entries(&host, wolf), expected);
        let timeline = timeline(&host, wolf);
        assert_eq!(timeline["digest"], json!(Digest::of(&patched())));
        assert_eq!((&timeline["state"], &timeline["why"]), (&json!("completed"), &Value::Null));
    }
    assert_eq!(waits(&host, "wolf-end"), 2);
}

#[test]
fn an_operator_who_retries_a_saga_parked_by_a_fault_gets_the_deployed_component() {
    let site = Site::new();
    let host = site.start(&wild());
    let wolf = stumble(&host, "panic");
    parked(&host, &wolf);
    host.act(&wolf, Act::Retry { reason: None }).unwrap();
    host.until(2, |event| wolf == event.stream.id() && event.name == "parked");
    host.deploy(&next(true));
    host.act(&wolf, Act::Retry { reason: None }).unwrap();
    assert_eq!(end(&host, &wolf), "completed");
    assert_eq!(timeline(&host, &wolf)["digest"], json!(Digest::of(&patched())));
}

#[test]
fn a_step_without_events_is_in_the_journal_before_the_next_command() {
    let site = Site::new();
    let host = site.start(&wild());
    let wolf = stumble(&host, "rest");
    // The next command is decided, so the one before it is journaled, whatever happens now.
    host.until(1, |event| event.stream.as_str() == "beast/wolf-end");
    let journaled = entries(&host, &wolf);
    assert_eq!(&journaled[..2], ["started", "step-done"]);
    let events = host.events();
    let position = |what: &dyn Fn(&str, &str) -> bool| {
        let found = events.iter().find(|event| what(event.stream.as_str(), event.name.as_str()));
        found.map(|event| event.position)
    };
    let rested = position(&|stream, name| stream.starts_with("saga/") && name == "step-done");
    assert!(rested < position(&|stream, _| stream == "beast/wolf-end"), "{rested:?}");
}

#[test]
fn an_undo_that_starts_a_saga_is_not_undone_by_it() {
    let host = Site::new().start(&wild());
    let wolf = stumble(&host, "regret");
    assert_eq!(end(&host, &wolf), "compensated");
    host.until(1, |event| event.name == "compensated" && wolf != event.stream.id());
    let mourner: SagaId = {
        let events = host.events();
        let started = events.iter().find(|event| {
            let saga: Option<Value> = event.payload.read().ok();
            event.name == "started" && saga.is_some_and(|saga| saga["saga"] == "mourn")
        });
        started.unwrap().stream.id().into()
    };
    let journal = ["started", "step-done", "unwinding", "undone", "not-undone", "compensated"];
    assert_eq!(entries(&host, &mourner), journal);
    let timeline = timeline(&host, &mourner);
    assert_eq!(timeline["steps"][0]["undo"]["outcome"], "not-compensable");
    assert_eq!(timeline["steps"][1]["undo"]["outcome"], "done");
}

#[test]
fn what_cannot_be_undone_is_never_shown_as_undone() {
    let host = Site::new().start(&tame());
    let wolf = begin(&host, "wolf", "retreat", json!({}));
    assert_eq!(end(&host, &wolf), "compensated");
    // The command `retreat` has no compensation.
    let undos: Vec<Value> = host
        .journal(&wolf)
        .into_iter()
        .filter(|(name, _)| name.ends_with("undone"))
        .map(|(name, payload)| json!([name, payload["name"]]))
        .collect();
    let expected = [["undone", "second"], ["undone", "first"], ["not-undone", "trigger"]];
    assert_eq!(undos, expected.map(|pair| json!(pair)));
    assert_eq!(timeline(&host, &wolf)["steps"][0]["undo"]["outcome"], "not-compensable");
}

#[test]
fn a_saga_that_waits_for_the_next_event_gets_another_one() {
    let site = Site::new();
    let host = site.start(&wild());
    let owl = begin(&host, "owl", "heed", json!({"days": 1}));
    until(&host, &owl, "waiting");
    for version in [2, 3] {
        host.send(&beast("owl", "wait", json!({}))).unwrap();
        host.until(version - 1, |event| owl == event.stream.id() && event.name == "awoken");
    }
    assert_eq!((end(&host, &owl), waits(&host, "owl-heard-2-3")), ("completed", 1));
}

#[test]
fn a_saga_whose_journal_does_not_fit_into_the_log_parks() {
    // Room for every entry but that of a step.
    let site = Site::new().with_largest_append(420);
    let host = site.start(&wild());
    let id = "w".repeat(120);
    let wolf = begin(&host, &id, "hibernate", json!({"days": 1}));
    let why = "the events of one command are more than the log takes at once";
    assert!(parked(&host, &wolf)["why"].as_str().unwrap().starts_with(why));
    assert_eq!(entries(&host, &wolf), ["started", "parked"]);

    // The command has been executed, and its answer is as large as before.
    host.act(&wolf, Act::Retry { reason: None }).unwrap();
    host.until(2, |event| wolf == event.stream.id() && event.name == "parked");
    assert_eq!(waits(&host, &format!("{id}-den")), 1);
    host.stop();

    // A log with more room.
    let host = site.with_largest_append(usize::MAX).start(&wild());
    host.act(&wolf, Act::Retry { reason: None }).unwrap();
    until(&host, &wolf, "waiting");
    assert_eq!(waits(&host, &format!("{id}-den")), 1);
}

#[test]
fn a_step_whose_events_do_not_fit_into_the_log_has_failed_at_once() {
    let host = Site::new().with_largest_append(1_000).start(&wild());
    let wolf = stumble(&host, "noise");
    assert_eq!(end(&host, &wolf), "compensated");
    let journal = host.journal(&wolf);
    let (_, failed) = journal.iter().find(|(name, _)| name == "step-failed").unwrap();
    assert_eq!((&failed["name"], &failed["effort"]["attempts"]), (&json!("roar"), &json!(1)));
    assert!(failed["error"].as_str().unwrap().contains("more than the log takes at once"), "{failed}");
    let undos = journal.iter().filter(|(name, _)| name.ends_with("undone"));
    let undos: Vec<Value> = undos.map(|(name, payload)| json!([name, payload["name"]])).collect();
    let expected = [["not-undone", "roar"], ["undone", "first"], ["not-undone", "trigger"]];
    assert_eq!(undos, expected.map(|pair| json!(pair)));
}

#[test]
fn a_reply_names_the_saga_of_the_aggregates_own_service_whatever_else_listens() {
    for files in [[eavesdropper(), wasm()], [wasm(), eavesdropper()]] {
        let host = Site::new().start(&Services::of(files.into(), &json!({}), RUNS));
        let bear = begin(&host, "bear", "hibernate", json!({"days": 1}));
        until(&host, &bear, "waiting");
        assert_eq!(timeline(&host, &bear)["name"], "hibernate");
        // The saga that this event starts is another service's: no part of what the command promises.
        assert_eq!(host.send(&beast("bear", "pose", json!({}))).unwrap().saga, None);
    }
}
