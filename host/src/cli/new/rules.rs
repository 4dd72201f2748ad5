//! The rules: given events, when a command, then events.

use std::sync::LazyLock;

use kontor_testkit::{Aggregate, Event, Service, event, json};

fn opened() -> Event {
    event("service-name-opened", json!({"title": "First"}))
}

fn closed() -> Event {
    event("service-name-closed", json!({}))
}

/// The aggregate with the id `one`, with what happened to it.
fn after(given: &[Event]) -> Aggregate<'static> {
    static SERVICE: LazyLock<Service> = LazyLock::new(|| Service::load("service-name"));
    SERVICE.aggregate("service-name", "one").given(given.iter().cloned())
}

#[test]
fn it_is_opened_once() {
    let first = json!({"title": "First"});
    after(&[])
        .when("open", first.clone())
        .then_events([opened()])
        .then_view(json!({"id": "one", "title": "First", "closed": false}));
    after(&[opened()]).when("open", first).then_rejected("already-exists");
}

#[test]
fn it_is_closed_once() {
    after(&[opened()])
        .when("close", json!({}))
        .then_events([closed()])
        .then_view(json!({"id": "one", "title": "First", "closed": true}));
    after(&[]).when("close", json!({})).then_rejected("not-found");
    after(&[opened(), closed()]).when("close", json!({})).then_rejected("already-closed");
}

#[test]
fn payloads_that_make_no_sense_are_rejected() {
    let colored = json!({"title": "First", "color": "red"});
    for payload in [json!({}), json!({"title": ""}), json!({"title": 1}), colored] {
        after(&[]).when("open", payload).then_rejected("invalid-payload");
    }
}
