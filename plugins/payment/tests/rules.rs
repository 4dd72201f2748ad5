//! The rules of payments.

use std::sync::LazyLock;

use kontor_testkit::{Aggregate, Event, Service, event, json};

static PAYMENT: LazyLock<Service> = LazyLock::new(|| {
    Service::load("payment").config("card-limit", json!(1000)).config("points-limit", json!(100))
});

fn payment_after(given: &[Event]) -> Aggregate<'static> {
    PAYMENT.aggregate("payment", "o1").given(given.iter().cloned())
}

/// An amount and how it is paid; a method of which nothing is paid is left out.
fn charge(card: u64, points: u64) -> serde_json::Value {
    let methods: Vec<_> = [("card", card), ("points", points)]
        .into_iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(method, amount)| json!({"method": method, "amount": amount}))
        .collect();
    json!({"amount": card + points, "methods": methods})
}

fn authorized(card: u64, points: u64) -> Event {
    event("payment-authorized", charge(card, points))
}

fn changed(from: (u64, u64), to: (u64, u64)) -> Event {
    let mut payload = charge(to.0, to.1);
    payload["previous"] = charge(from.0, from.1);
    event("payment-changed", payload)
}

fn cancelled() -> Event {
    event("payment-cancelled", json!({}))
}

#[test]
fn an_order_is_paid_once() {
    payment_after(&[]).when("authorize", charge(900, 100)).then_events([authorized(900, 100)]).then_view(
        json!({
            "id": "o1",
            "status": "authorized",
            "amount": 1000,
            "methods": [{"method": "card", "amount": 900}, {"method": "points", "amount": 100}],
        }),
    );
    payment_after(&[authorized(900, 100)])
        .when("authorize", charge(900, 100))
        .then_rejected("already-exists");
}

#[test]
fn only_a_payment_that_exists_and_stands_can_be_changed_or_cancelled() {
    let table = [(vec![], "not-found"), (vec![authorized(10, 0), cancelled()], "payment-cancelled")];
    for (given, code) in table {
        payment_after(&given).when("change", charge(20, 0)).then_rejected(code);
        payment_after(&given).when("cancel", json!({})).then_rejected(code);
    }
}

#[test]
fn each_method_has_its_limit() {
    let table = [
        ((1000, 0), None),
        ((1001, 0), Some("card-declined")),
        ((0, 100), None),
        ((0, 101), Some("insufficient-points")),
        ((1000, 100), None),
        ((1000, 101), Some("insufficient-points")),
    ];
    for ((card, points), refused) in table {
        let authorize = payment_after(&[]).when("authorize", charge(card, points));
        let change = payment_after(&[authorized(1, 0)]).when("change", charge(card, points));
        match refused {
            Some(code) => {
                authorize.then_rejected(code);
                change.then_rejected(code);
            }
            None => {
                authorize.then_events([authorized(card, points)]);
                change.then_events([changed((1, 0), (card, points))]);
            }
        }
    }
}

#[test]
fn without_a_configuration_there_is_no_limit() {
    Service::load("payment")
        .aggregate("payment", "o1")
        .when("authorize", charge(1_000_000, 1_000_000))
        .then_events([authorized(1_000_000, 1_000_000)]);
}

#[test]
fn the_methods_make_up_the_amount() {
    let short = json!({"amount": 11, "methods": [{"method": "card", "amount": 10}]});
    payment_after(&[]).when("authorize", short.clone()).then_rejected("amount-mismatch");
    payment_after(&[authorized(10, 0)]).when("change", short).then_rejected("amount-mismatch");
}

#[test]
fn payloads_that_make_no_sense_are_invalid() {
    let table = [
        json!({}),
        json!({"amount": -1, "methods": []}),
        json!({"amount": 0.5, "methods": []}),
        json!({"amount": 10, "methods": [{"method": "cash", "amount": 10}]}),
    ];
    for payload in table {
        payment_after(&[]).when("authorize", payload).then_rejected("invalid-payload");
    }
}

#[test]
fn the_money_goes_back_when_a_payment_is_cancelled() {
    payment_after(&[authorized(10, 5)]).when("cancel", json!({})).then_events([cancelled()]).then_view(
        json!({
            "id": "o1",
            "status": "cancelled",
            "amount": 15,
            "methods": [{"method": "card", "amount": 10}, {"method": "points", "amount": 5}],
        }),
    );
}

#[test]
fn every_step_of_a_saga_can_be_undone() {
    let change = changed((10, 0), (20, 0));
    let table = [
        ("authorize", vec![authorized(10, 0)], cancelled()),
        ("change", vec![authorized(10, 0), change], changed((20, 0), (10, 0))),
        ("cancel", vec![authorized(10, 0), cancelled()], authorized(10, 0)),
    ];
    for (command, given, undo) in table {
        let done = given[given.len() - 1].clone();
        payment_after(&given).when_undone(command, [done], "undeliverable").then_events([undo]);
    }
}

#[test]
fn what_is_no_longer_there_needs_no_undo() {
    let change = changed((10, 0), (20, 0));
    let table = [
        ("authorize", authorized(10, 0), vec![authorized(10, 0), cancelled()]),
        ("change", change.clone(), vec![authorized(10, 0), change, cancelled()]),
        ("cancel", cancelled(), vec![authorized(10, 0), cancelled(), authorized(10, 0)]),
    ];
    for (command, done, given) in table {
        payment_after(&given).when_undone(command, [done], "undeliverable").then_nothing();
    }
}
