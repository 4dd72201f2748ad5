//! The rules of deliveries.

use std::sync::LazyLock;

use kontor_testkit::{Aggregate, Event, Service, event, json};

static DELIVERY: LazyLock<Service> =
    LazyLock::new(|| Service::load("delivery").config("undeliverable-regions", json!(["atlantis"])));

fn delivery_after(given: &[Event]) -> Aggregate<'static> {
    DELIVERY.aggregate("delivery", "o1").given(given.iter().cloned())
}

fn scheduled() -> Event {
    event("delivery-scheduled", json!({"address": {"region": "north", "line": "1 High Street"}}))
}

/// An event without fields.
fn happened(name: &str) -> Event {
    event(name, json!({}))
}

#[test]
fn a_delivery_is_scheduled_once() {
    let address = json!({"region": "north", "line": "1 High Street"});
    delivery_after(&[])
        .when("schedule", json!({"address": address}))
        .then_events([scheduled()])
        .then_view(json!({"id": "o1", "status": "preparing", "address": address}));
    delivery_after(&[scheduled()])
        .when("schedule", json!({"address": address}))
        .then_rejected("already-exists");
}

#[test]
fn some_regions_are_not_delivered_to() {
    let sunken = json!({"address": {"region": "atlantis", "line": "1 Low Street"}});
    delivery_after(&[])
        .when("schedule", sunken.clone())
        .then_rejected("undeliverable")
        .with_details(json!({"region": "atlantis"}));
    let everywhere = Service::load("delivery");
    everywhere
        .aggregate("delivery", "o1")
        .when("schedule", sunken.clone())
        .then_events([event("delivery-scheduled", sunken)]);
}

#[test]
fn what_can_be_done_depends_on_the_status() {
    let (held, cancelled) = (happened("delivery-held"), happened("delivery-cancelled"));
    let resumed = happened("delivery-resumed");
    let table: &[(&[Event], &str, Result<&Event, &str>)] = &[
        (&[], "hold", Err("not-found")),
        (&[], "resume", Err("not-found")),
        (&[], "cancel", Err("not-found")),
        (&[scheduled()], "hold", Ok(&held)),
        (&[scheduled()], "resume", Err("delivery-not-held")),
        (&[scheduled()], "cancel", Ok(&cancelled)),
        (&[scheduled(), held.clone()], "hold", Err("delivery-under-way")),
        (&[scheduled(), held.clone()], "resume", Ok(&resumed)),
        (&[scheduled(), held.clone()], "cancel", Err("delivery-under-way")),
        (&[scheduled(), held.clone(), resumed.clone()], "hold", Ok(&held)),
        (&[scheduled(), cancelled.clone()], "hold", Err("delivery-under-way")),
        (&[scheduled(), cancelled.clone()], "resume", Err("delivery-not-held")),
        (&[scheduled(), cancelled.clone()], "cancel", Err("delivery-under-way")),
    ];
    for (given, command, expected) in table {
        let outcome = delivery_after(given).when(command, json!({}));
        match expected {
            Ok(event) => outcome.then_events([(*event).clone()]),
            Err(code) => outcome.then_rejected(code),
        };
    }
}

#[test]
fn every_step_of_a_saga_can_be_undone_once() {
    let (held, resumed) = (happened("delivery-held"), happened("delivery-resumed"));
    let cancelled = happened("delivery-cancelled");
    let table = [
        ("schedule", vec![scheduled()], cancelled.clone()),
        ("schedule", vec![scheduled(), held.clone()], cancelled.clone()),
        ("hold", vec![scheduled(), held.clone()], resumed.clone()),
        ("resume", vec![scheduled(), held.clone(), resumed], held),
        ("cancel", vec![scheduled(), cancelled], scheduled()),
    ];
    for (command, given, undo) in table {
        let done = match command {
            "schedule" => given[0].clone(),
            _ => given[given.len() - 1].clone(),
        };
        delivery_after(&given)
            .when_undone(command, [done.clone()], "card-declined")
            .then_events([undo.clone()]);
        delivery_after(&[given, vec![undo]].concat())
            .when_undone(command, [done], "card-declined")
            .then_nothing();
    }
}
