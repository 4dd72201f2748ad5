//! The rules of deliveries.

use std::sync::LazyLock;

use kontor_testkit::{Aggregate, Event, Service, event, json};
use serde_json::Value;

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

fn view(status: &str) -> Value {
    json!({"id": "o1", "status": status, "address": {"region": "north", "line": "1 High Street"}})
}

#[test]
fn a_delivery_is_scheduled_once() {
    let address = json!({"region": "north", "line": "1 High Street"});
    delivery_after(&[])
        .when("schedule", json!({"address": address}))
        .then_events([scheduled()])
        .then_view(view("preparing"));
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

fn refused() -> Event {
    event(
        "delivery-start-refused",
        json!({"reason": {"code": "card-declined", "message": "The test says so."}}),
    )
}

const STATUSES: [&str; 6] = ["preparing", "held", "starting", "in-transit", "delivered", "cancelled"];

/// The events that lead to a status.
fn given(status: &str) -> Vec<Event> {
    let since: &[&str] = match status {
        "preparing" => &[],
        "held" => &["delivery-held"],
        "starting" => &["delivery-start-requested"],
        "in-transit" => &["delivery-start-requested", "delivery-started"],
        "delivered" => &["delivery-start-requested", "delivery-started", "delivery-completed"],
        "cancelled" => &["delivery-cancelled"],
        other => panic!("there is no status {other}"),
    };
    [scheduled()].into_iter().chain(since.iter().map(|name| happened(name))).collect()
}

#[test]
fn what_can_be_done_depends_on_the_status() {
    const NOT_PREPARING: Result<(&str, &str), &str> = Err("delivery-under-way");
    let table = [
        ("hold", "preparing", Ok(("delivery-held", "held")), NOT_PREPARING),
        ("resume", "held", Ok(("delivery-resumed", "preparing")), Err("delivery-not-held")),
        ("cancel", "preparing", Ok(("delivery-cancelled", "cancelled")), NOT_PREPARING),
        ("start", "preparing", Ok(("delivery-start-requested", "starting")), NOT_PREPARING),
        ("confirm-start", "starting", Ok(("delivery-started", "in-transit")), Err("delivery-not-starting")),
        ("complete", "in-transit", Ok(("delivery-completed", "delivered")), Err("delivery-not-in-transit")),
    ];
    for (command, needed, possible, impossible) in table {
        for status in STATUSES {
            let outcome = delivery_after(&given(status)).when(command, json!({}));
            match if status == needed { possible } else { impossible } {
                Ok((event, status)) => outcome.then_events([happened(event)]).then_view(view(status)),
                Err(code) => outcome.then_rejected(code).with_details(json!({"status": status})),
            };
        }
        delivery_after(&[]).when(command, json!({})).then_rejected("not-found");
    }
}

#[test]
fn a_delivery_can_be_held_and_started_again() {
    for back in [
        vec![happened("delivery-held"), happened("delivery-resumed")],
        vec![happened("delivery-start-requested"), refused()],
    ] {
        let delivery = delivery_after(&given("preparing")).given(back);
        for (command, event) in [
            ("hold", "delivery-held"),
            ("start", "delivery-start-requested"),
            ("cancel", "delivery-cancelled"),
        ] {
            delivery.when(command, json!({})).then_events([happened(event)]);
        }
    }
}

/// A step is taken back, or nothing is left of it, or an operator has to deal with it.
#[test]
fn what_is_undone_depends_on_the_status() {
    type Expected = Result<Option<Event>, &'static str>;
    const NOTHING: Expected = Ok(None);
    const OPERATOR: Expected = Err("not-compensable");
    let by = |event: Event| -> Expected { Ok(Some(event)) };
    let (held, resumed) = (happened("delivery-held"), happened("delivery-resumed"));
    let (started, cancelled) = (happened("delivery-start-requested"), happened("delivery-cancelled"));
    let calls_off = || by(cancelled.clone());
    // In the order of STATUSES.
    let table = [
        ("schedule", scheduled(), [calls_off(), calls_off(), calls_off(), OPERATOR, OPERATOR, NOTHING]),
        ("hold", held.clone(), [NOTHING, by(resumed.clone()), NOTHING, NOTHING, NOTHING, NOTHING]),
        ("resume", resumed, [by(held), NOTHING, OPERATOR, OPERATOR, OPERATOR, NOTHING]),
        ("start", started, [NOTHING, NOTHING, by(refused()), OPERATOR, OPERATOR, NOTHING]),
        ("cancel", cancelled.clone(), [NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, by(scheduled())]),
    ];
    for (command, done, expected) in table {
        for (status, expected) in STATUSES.into_iter().zip(expected) {
            // The step itself, and then the events that lead to the status.
            let delivery = delivery_after(&[scheduled(), done.clone()]).given(given(status));
            let outcome = delivery.when_undone(command, [done.clone()], "card-declined");
            match expected {
                Ok(undo) => outcome.then_events(undo),
                Err(code) => outcome.then_rejected(code),
            };
        }
    }
}
