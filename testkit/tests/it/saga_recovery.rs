//! Sagas that cannot continue as they began, and the acts by which an operator recovers them.

use std::fs;
use std::time::Duration;

use kontor::model::{Caller, Digest, SagaId};
use kontor::saga::{Act, SagaError};
use kontor_testkit::host::{Host, Services, Site};
use serde_json::{Value, json};

use crate::beasts::{RUNS, beasts, begin, end, entries, parked, until, waits, wasm};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn on_path(path: &str) -> Services {
    beasts(&json!({ "path": path }))
}

fn wild() -> Services {
    beasts(&json!({}))
}

fn tame() -> Services {
    beasts(&json!({"tame": true}))
}

fn skip(step: Option<&str>) -> Act {
    Act::Skip { step: step.map(str::to_owned), reason: "it is done by hand".to_owned() }
}

fn resolve() -> Act {
    Act::Resolve { reason: "it is all done by hand".to_owned() }
}

/// Checks that an act is rejected with a sentence that contains `why`.
#[track_caller]
fn check_refused(host: &Host, saga: &SagaId, act: Act, why: &str) {
    let before = entries(host, saga);
    let refusal = host.act(saga, act.clone()).expect_err("this must be refused").to_string();
    assert!(refusal.contains(why), "{act:?}: expected {why:?} in {refusal:?}");
    assert_eq!(entries(host, saga), before, "{act:?} was refused and is in the journal");
}

fn code(refusal: &SagaError) -> &str {
    match refusal {
        SagaError::Rejected(rejection) => &rejection.code,
        other => panic!("{other}"),
    }
}

/// Starts a host with a parked saga. Returns both.
fn parked_saga(site: &Site, services: &Services, name: &str) -> (Host, SagaId) {
    let host = site.start(services);
    let saga = begin(&host, "wolf", name, json!({}));
    assert_eq!(end(&host, &saga), "parked");
    (host, saga)
}

#[test]
fn a_run_that_asks_for_something_else_than_before_parks_with_both_sides_shown() {
    let table = [
        ("right", "at first it asks for something other", json!("beast/wolf-right")),
        ("home", "it does not reach first any more", Value::Null),
    ];
    for (path, why, asked) in table {
        let site = Site::new();
        let host = site.start(&on_path("left"));
        let wolf = begin(&host, "wolf", "wander", json!({}));
        until(&host, &wolf, "waiting");
        host.kill();

        site.clock().advance(DAY);
        let host = site.start(&on_path(path));
        let parked = parked(&host, &wolf);
        assert!(parked["why"].as_str().unwrap().contains(why), "{parked}");
        assert_eq!(parked["divergence"]["journaled"]["stream"], "beast/wolf-left");
        assert_eq!(parked["divergence"]["asked"]["stream"], asked);
        assert_eq!([waits(&host, "wolf-right"), waits(&host, "wolf-end")], [0, 0]);
        host.stop();

        let host = site.start(&on_path("left"));
        host.act(&wolf, Act::Retry { reason: None }).unwrap();
        assert_eq!(end(&host, &wolf), "completed");
        assert_eq!([waits(&host, "wolf-left"), waits(&host, "wolf-end")], [1, 1]);
    }
}

#[test]
fn a_run_that_uses_a_name_twice_parks() {
    let (host, wolf) = parked_saga(&Site::new(), &wild(), "stutter");
    assert_eq!(parked(&host, &wolf)["why"], "the run uses the step name again twice");
    assert_eq!([waits(&host, "wolf-one"), waits(&host, "wolf-two")], [1, 0]);
    check_refused(&host, &wolf, skip(None), "No step of the saga has failed");
}

/// Returns another version of the fixture, in which a hibernating beast's step after the winter has another
/// name.
fn next_version() -> Vec<u8> {
    let (old, new) = (b"wake-up", b"come-to");
    let mut wasm = wasm();
    let places: Vec<usize> = (0..wasm.len() - old.len()).filter(|at| wasm[*at..].starts_with(old)).collect();
    assert!(!places.is_empty(), "the name of the step is in the component");
    for at in places {
        wasm[at..at + new.len()].copy_from_slice(new);
    }
    wasm
}

/// Returns the names of the completed steps of a saga.
fn steps(host: &Host, saga: &SagaId) -> Vec<String> {
    let journal = host.journal(saga).into_iter();
    let done = journal.filter(|(entry, _)| entry == "step-done");
    done.map(|(_, payload)| payload["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_saga_goes_on_with_the_component_that_it_started_on() {
    let site = Site::new();
    let host = site.start(&wild());
    let old = begin(&host, "old", "hibernate", json!({"days": 1}));
    until(&host, &old, "waiting");
    host.stop();

    let next = Services::of(vec![next_version()], &json!({}), RUNS);
    let host = site.start(&next);
    let new = begin(&host, "new", "hibernate", json!({"days": 1}));
    until(&host, &new, "waiting");
    site.clock().advance(DAY);
    assert_eq!((end(&host, &old), end(&host, &new)), ("completed", "completed"));
    assert_eq!(steps(&host, &old), ["lie-down", "wake-up"]);
    assert_eq!(steps(&host, &new), ["lie-down", "come-to"]);
}

#[test]
fn a_saga_whose_component_is_gone_parks_and_says_so() {
    let site = Site::new();
    let host = site.start(&wild());
    let old = begin(&host, "old", "hibernate", json!({"days": 1}));
    until(&host, &old, "waiting");
    host.stop();
    let digest = Digest::of(&wasm());
    fs::remove_file(site.data().join("components").join(format!("{digest}.wasm"))).unwrap();

    site.clock().advance(DAY);
    let host = site.start(&Services::of(vec![next_version()], &json!({}), RUNS));
    let why = format!("the component {} is not kept any more", digest.short());
    assert!(parked(&host, &old)["why"].as_str().unwrap().ends_with(&why));
    host.stop();

    // The component is back.
    let host = site.start(&wild());
    host.act(&old, Act::Retry { reason: None }).unwrap();
    assert_eq!((end(&host, &old), waits(&host, "old-den")), ("completed", 2));
}

#[test]
fn what_failed_is_tried_again_until_it_is_done() {
    for (saga, why, end_state) in [
        ("leap", "the step land failed after the pivot", "completed"),
        ("retreat", "not undone: first, second", "compensated"),
    ] {
        let site = Site::new();
        let (host, wolf) = parked_saga(&site, &wild(), saga);
        assert!(parked(&host, &wolf)["why"].as_str().unwrap().contains(why));
        // The cause persists.
        host.act(&wolf, Act::Retry { reason: None }).unwrap();
        host.until(2, |event| wolf == event.stream.id() && event.name == "parked");
        host.stop();

        let host = site.start(&tame());
        host.act(&wolf, Act::Retry { reason: None }).unwrap();
        assert_eq!(end(&host, &wolf), end_state);
        check_refused(&host, &wolf, Act::Retry { reason: None }, &format!("The saga is {end_state}"));
    }
}

#[test]
fn what_failed_is_left_out_step_by_step() {
    let (host, wolf) = parked_saga(&Site::new(), &wild(), "leap");
    check_refused(&host, &wolf, skip(Some("rest")), "The step rest has not failed, only land");
    host.act(&wolf, skip(None)).unwrap();
    assert_eq!((end(&host, &wolf), waits(&host, "wolf-ground")), ("completed", 1));

    let (host, wolf) = parked_saga(&Site::new(), &wild(), "retreat");
    check_refused(&host, &wolf, skip(None), "Name one of the steps that failed: first, second");
    host.act(&wolf, skip(Some("first"))).unwrap();
    host.until(2, |event| wolf == event.stream.id() && event.name == "parked");
    assert_eq!(parked(&host, &wolf)["why"], "not undone: second");
    host.act(&wolf, skip(Some("second"))).unwrap();
    assert_eq!(end(&host, &wolf), "compensated");
}

#[test]
fn an_operator_who_has_done_everything_by_hand_ends_it() {
    let site = Site::new();
    let (host, wolf) = parked_saga(&site, &wild(), "leap");
    assert_eq!(host.act(&wolf, resolve()).unwrap().state.as_str(), "resolved");
    for act in [Act::Retry { reason: None }, skip(Some("land")), resolve()] {
        check_refused(&host, &wolf, act, "The saga is resolved");
    }
    host.kill();
    let host = site.start(&tame());
    assert_eq!((end(&host, &wolf), waits(&host, "wolf-ground")), ("resolved", 0));
}

#[test]
fn only_a_parked_saga_takes_an_act() {
    let host = Site::new().start(&wild());
    let unknown = host.act(&"nobody".into(), Act::Retry { reason: None }).unwrap_err();
    assert_eq!(code(&unknown), "not-found");
    let bear = begin(&host, "bear", "hibernate", json!({"days": 1}));
    until(&host, &bear, "waiting");
    for act in [Act::Retry { reason: None }, skip(None), resolve()] {
        check_refused(&host, &bear, act, "only a parked one needs an operator");
    }
}

#[test]
fn of_two_acts_at_once_one_counts() {
    for _ in 0..20 {
        let (host, wolf) = parked_saga(&Site::new(), &wild(), "leap");
        let (sagas, ada, bob) = (host.sagas(), Caller::named("ada"), Caller::named("bob"));
        let (one, other) = host.run(async {
            tokio::join!(sagas.act(&wolf, resolve(), &ada), sagas.act(&wolf, resolve(), &bob))
        });
        let refused = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
        assert_eq!(refused.iter().map(code).collect::<Vec<_>>(), ["saga-not-parked"]);
        assert_eq!(entries(&host, &wolf).iter().filter(|entry| *entry == "resolved").count(), 1);
    }
}

#[test]
fn sagas_that_are_due_wake_although_an_operator_acts_on_them_in_vain() {
    let (site, sleepers) = (Site::new(), 50);
    let host = site.start(&wild());
    let bears =
        (0..sleepers).map(|number| begin(&host, &format!("bear-{number}"), "hibernate", json!({"days": 1})));
    let bears: Vec<SagaId> = bears.collect();
    host.until(sleepers, |event| event.name == "waiting");
    let ada = Caller::named("ada");
    let acts = bears.iter().map(|bear| host.sagas().act(bear, Act::Retry { reason: None }, &ada));
    host.run(async {
        tokio::join!(futures::future::join_all(acts), async { site.clock().advance(DAY) });
    });
    for bear in bears {
        assert_eq!(end(&host, &bear), "completed");
    }
}

#[test]
fn an_operator_who_stops_waiting_for_an_act_does_not_block_the_saga() {
    for patience_us in (0..400).step_by(20) {
        let (host, wolf) = parked_saga(&Site::new(), &wild(), "stutter");
        let ada = Caller::named("ada");
        let act = host.sagas().act(&wolf, resolve(), &ada);
        // Err: the time was over first. With or without the act done, the next one is accepted.
        let _ = host.run(async { tokio::time::timeout(Duration::from_micros(patience_us), act).await });
        if let Err(error) = host.act(&wolf, resolve()) {
            assert!(error.to_string().contains("The saga is resolved"), "{error}");
        }
        assert_eq!(end(&host, &wolf), "resolved");
    }
}
