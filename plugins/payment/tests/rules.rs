//! The rules of payments.

use std::sync::LazyLock;

use kontor_testkit::{Aggregate, Event, Outcome, Service, event, json};
use serde_json::Value;

static PAYMENT: LazyLock<Service> = LazyLock::new(|| {
    Service::load("payment").config("card-limit", json!(1000)).config("points-limit", json!(100))
});

/// The order's authorization at the gateway.
const AUTHORIZATION: &str = "https://gateway.test/pay/authorizations/o1";
const AUTHORIZATIONS: &str = "https://gateway.test/pay/authorizations";

fn payment_after(given: &[Event]) -> Aggregate<'static> {
    PAYMENT.aggregate("payment", "o1").given(given.iter().cloned())
}

/// An amount and how it is paid; a method with the amount 0 is left out.
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

/// The outcome of a command or an undo whose only request the gateway answers with this status; 0: never.
fn asked_of_the_gateway(method: &str, url: &str, status: u16, act: fn(Aggregate<'_>) -> Outcome) -> Outcome {
    let service = Service::load("payment").config("gateway-url", json!("https://gateway.test/pay/"));
    let service = match status {
        0 => service.is_silent_http(method, url),
        _ => service.answers_http(method, url, status, json!({})),
    };
    act(service.aggregate("payment", "o1"))
}

type Act = fn(Aggregate<'_>) -> Outcome;

fn authorize(payment: Aggregate<'_>) -> Outcome {
    payment.when("authorize", charge(20, 5))
}

fn change(payment: Aggregate<'_>) -> Outcome {
    payment.given([authorized(10, 0)]).when("change", charge(20, 5))
}

fn cancel(payment: Aggregate<'_>) -> Outcome {
    payment.given([authorized(20, 5)]).when("cancel", json!({}))
}

fn undo_authorize(payment: Aggregate<'_>) -> Outcome {
    let done = authorized(20, 5);
    payment.given([done.clone()]).when_undone("authorize", [done], "undeliverable")
}

fn undo_change(payment: Aggregate<'_>) -> Outcome {
    let done = changed((20, 5), (30, 5));
    payment.given([authorized(20, 5), done.clone()]).when_undone("change", [done], "undeliverable")
}

fn undo_cancel(payment: Aggregate<'_>) -> Outcome {
    payment.given([authorized(20, 5), cancelled()]).when_undone("cancel", [cancelled()], "undeliverable")
}

#[test]
fn the_gateway_is_asked_once_for_each_command_and_each_undo() {
    let charge = json!({
        "order_id": "o1",
        "amount": 25,
        "methods": [{"method": "card", "amount": 20}, {"method": "points", "amount": 5}],
    });
    let none = Value::Null;
    // The act, the request to the gateway, and the event when the gateway says yes.
    let table: [(Act, &str, &str, &Value, Event); 6] = [
        (authorize, "POST", AUTHORIZATIONS, &charge, authorized(20, 5)),
        (change, "PUT", AUTHORIZATION, &charge, changed((10, 0), (20, 5))),
        (cancel, "DELETE", AUTHORIZATION, &none, cancelled()),
        (undo_authorize, "DELETE", AUTHORIZATION, &none, cancelled()),
        (undo_change, "PUT", AUTHORIZATION, &charge, changed((30, 5), (20, 5))),
        (undo_cancel, "POST", AUTHORIZATIONS, &charge, authorized(20, 5)),
    ];
    for (act, method, url, body, event) in table {
        let outcome = asked_of_the_gateway(method, url, 200, act);
        outcome.then_events([event]);
        let [sent] = outcome.sent() else { panic!("one request, not {:?}", outcome.sent()) };
        assert_eq!((&*sent.method, &*sent.url, &sent.body), (method, url, body));
        assert_eq!(sent.headers["idempotency-key"], "test-command");
    }
}

#[test]
fn the_gateway_has_one_way_to_say_no_and_everything_else_is_a_fault() {
    // The act, the request to the gateway, the status that means "no", and the code of the rejection.
    let table: [(Act, &str, &str, u16, &str); 6] = [
        (authorize, "POST", AUTHORIZATIONS, 402, "card-declined"),
        (change, "PUT", AUTHORIZATION, 402, "card-declined"),
        (cancel, "DELETE", AUTHORIZATION, 409, "refund-refused"),
        (undo_authorize, "DELETE", AUTHORIZATION, 409, "refund-refused"),
        (undo_change, "PUT", AUTHORIZATION, 402, "card-declined"),
        (undo_cancel, "POST", AUTHORIZATIONS, 402, "card-declined"),
    ];
    for (act, method, url, no, code) in table {
        asked_of_the_gateway(method, url, no, act).then_rejected(code);
        let both = [402, 409];
        let other_no = both.into_iter().find(|status| *status != no).unwrap();
        for status in [other_no, 302, 404, 500, 503] {
            let outcome = asked_of_the_gateway(method, url, status, act);
            let detail = &outcome.then_fault().detail;
            assert!(detail.contains(&format!("the gateway answered {status}")), "{detail}");
        }
        let silent = asked_of_the_gateway(method, url, 0, act);
        let detail = &silent.then_fault().detail;
        assert!(detail.contains("the gateway does not answer"), "{detail}");
    }
}

#[test]
fn what_the_gateway_may_have_heard_of_a_failed_command_is_taken_back() {
    let authorization: Act = |payment| payment.when_undone("authorize", [], "step-failed");
    let refund: Act = |payment| payment.given([authorized(20, 5)]).when_undone("cancel", [], "step-failed");
    // The act that has failed, and the request that takes it back; 404: the gateway has nothing of it.
    let table = [(authorization, "DELETE", 404), (authorization, "DELETE", 200), (refund, "PUT", 200)];
    for (act, method, status) in table {
        let outcome = asked_of_the_gateway(method, AUTHORIZATION, status, act);
        outcome.then_nothing();
        assert_eq!(outcome.sent().len(), 1);
        asked_of_the_gateway(method, AUTHORIZATION, 500, act).then_fault();
    }
    let outcome = refund(
        Service::load("payment")
            .config("gateway-url", json!("https://gateway.test/pay/"))
            .answers_http("PUT", AUTHORIZATION, 404, json!({}))
            .answers_http("POST", AUTHORIZATIONS, 201, json!({}))
            .aggregate("payment", "o1"),
    );
    outcome.then_nothing();
    let keys: Vec<_> = outcome.sent().iter().map(|sent| sent.headers["idempotency-key"].as_str()).collect();
    assert_eq!(keys, ["test-command", "test-command/again"]);
}

#[test]
fn what_breaks_the_rules_does_not_reach_the_gateway() {
    let strict = Service::load("payment")
        .config("gateway-url", json!("https://gateway.test/pay"))
        .config("card-limit", json!(10));
    let new = || strict.aggregate("payment", "o1");
    let refused = [
        new().when("authorize", charge(11, 0)),
        new().when("cancel", json!({})),
        new().given([authorized(1, 0)]).when("authorize", charge(1, 0)),
        new().given([authorized(1, 0), cancelled()]).when("cancel", json!({})),
    ];
    for (outcome, code) in
        refused.iter().zip(["card-declined", "not-found", "already-exists", "payment-cancelled"])
    {
        outcome.then_rejected(code);
        assert_eq!(outcome.sent(), []);
    }
}
