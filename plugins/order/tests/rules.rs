//! The rules of orders.

use kontor_testkit::{Event, Service, event, json};
use serde_json::Value;

/// The order service beside an inventory of two products.
fn orders() -> Service {
    let product = |id: &str, name: &str, unit_price: u64, available: u64| {
        json!({
            "id": id, "name": name, "unit_price": unit_price,
            "available": available, "reserved": 0, "shipped": 0,
        })
    };
    Service::load("order")
        .answers("inventory", "product", json!({"id": "tea"}), product("tea", "Tea", 333, 5))
        .answers("inventory", "product", json!({"id": "pot"}), product("pot", "Pot", 2000, 1))
        .answers("inventory", "product", json!({"id": "gold"}), product("gold", "Gold", u64::MAX / 4, 9))
        .refuses("inventory", "product", json!({"id": "air"}), "not-found")
}

fn line(product: &str, quantity: i64) -> Value {
    json!({"product_id": product, "quantity": quantity})
}

fn share(method: &str, share: &str) -> Value {
    json!({"method": method, "share": share})
}

fn address() -> Value {
    json!({"region": "north", "line": "1 High Street"})
}

fn wanted(lines: &[Value], payment: &[Value]) -> Value {
    json!({"user_id": "u1", "lines": lines, "payment": payment, "address": address()})
}

/// An order for three packets of tea, paid with card and points.
fn created() -> Event {
    event(
        "order-created",
        json!({
            "user_id": "u1",
            "lines": [{"product_id": "tea", "name": "Tea", "quantity": 3, "unit_price": 333, "amount": 999}],
            "total": 999,
            "payment": [{"method": "card", "amount": 900}, {"method": "points", "amount": 99}],
            "address": address(),
        }),
    )
}

fn confirmed() -> Event {
    event("order-confirmed", json!({}))
}

fn cancelled() -> Event {
    event("order-cancelled", json!({"reason": {"code": "card-declined", "message": "The test says so."}}))
}

fn view(status: &str, reason: Value) -> Value {
    json!({
        "id": "o1",
        "user_id": "u1",
        "status": status,
        "lines": [{"product_id": "tea", "name": "Tea", "quantity": 3, "unit_price": 333, "amount": 999}],
        "total": 999,
        "payment": [{"method": "card", "amount": 900}, {"method": "points", "amount": 99}],
        "address": address(),
        "reason": reason,
    })
}

#[test]
fn an_order_has_the_prices_of_the_moment_and_the_first_method_takes_the_remainder() {
    orders()
        .aggregate("order", "o1")
        .when("create", wanted(&[line("tea", 3)], &[share("card", "0.9"), share("points", "0.1")]))
        .then_events([created()])
        .then_view(view("pending", Value::Null));
}

#[test]
fn an_order_that_cannot_be_is_refused() {
    let card = [share("card", "1")];
    let tea = [line("tea", 1)];
    let table = [
        (wanted(&[], &card), "no-lines", Value::Null),
        (
            wanted(&[line("tea", 1), line("pot", 1), line("tea", 2)], &card),
            "duplicate-product",
            json!({"product_id": "tea"}),
        ),
        (wanted(&[line("tea", 0)], &card), "invalid-quantity", json!({"product_id": "tea"})),
        (wanted(&[line("tea", -1)], &card), "invalid-quantity", json!({"product_id": "tea"})),
        (wanted(&[line("tea", 1), line("air", 1)], &card), "unknown-product", json!({"product_id": "air"})),
        (
            wanted(&[line("tea", 1), line("pot", 2)], &card),
            "insufficient-stock",
            json!({"product_id": "pot", "available": 1}),
        ),
        (wanted(&tea, &[share("card", "0.5"), share("card", "0.5")]), "duplicate-method", Value::Null),
        (wanted(&tea, &[]), "invalid-payment-shares", Value::Null),
        (wanted(&tea, &[share("card", "0.9")]), "invalid-payment-shares", Value::Null),
        (
            wanted(&tea, &[share("card", "0.9"), share("points", "0.2")]),
            "invalid-payment-shares",
            Value::Null,
        ),
        (wanted(&tea, &[share("card", "one")]), "invalid-payment-shares", Value::Null),
        (wanted(&[line("gold", 3)], &card), "amount-too-large", Value::Null),
        (wanted(&[line("gold", 9)], &card), "amount-too-large", Value::Null),
    ];
    let orders = orders();
    for (payload, code, details) in table {
        orders.aggregate("order", "o1").when("create", payload).then_rejected(code).with_details(details);
    }
}

#[test]
fn payloads_that_make_no_sense_are_invalid() {
    let table = [
        json!({}),
        wanted(&[json!({"product_id": "tea"})], &[]),
        wanted(&[line("tea", 1)], &[share("cash", "1")]),
        // Fractions are strings: a float could not hold them.
        wanted(&[line("tea", 1)], &[json!({"method": "card", "share": 1.0})]),
        wanted(&vec![line("tea", 1); 101], &[share("card", "1")]),
    ];
    let orders = orders();
    for payload in table {
        orders.aggregate("order", "o1").when("create", payload).then_rejected("invalid-payload");
    }
}

#[test]
fn an_inventory_that_does_not_answer_is_a_fault_and_no_rejection() {
    let orders = Service::load("order").is_silent("inventory");
    let outcome =
        orders.aggregate("order", "o1").when("create", wanted(&[line("tea", 1)], &[share("card", "1")]));
    assert!(outcome.then_fault().detail.contains("inventory did not answer"));
}

#[test]
fn an_order_is_created_and_confirmed_once() {
    let orders = orders();
    let again = wanted(&[line("tea", 1)], &[share("card", "1")]);
    orders.aggregate("order", "o1").given([created()]).when("create", again).then_rejected("already-exists");
    orders.aggregate("order", "o1").when("confirm", json!({})).then_rejected("not-found");
    orders
        .aggregate("order", "o1")
        .given([created()])
        .when("confirm", json!({}))
        .then_events([confirmed()])
        .then_view(view("confirmed", Value::Null));
    for over in [confirmed(), cancelled()] {
        orders
            .aggregate("order", "o1")
            .given([created(), over])
            .when("confirm", json!({}))
            .then_rejected("order-not-pending");
    }
}

#[test]
fn undoing_an_order_cancels_it_with_the_reason() {
    let orders = orders();
    let order = orders.aggregate("order", "o1").given([created()]);
    order
        .when_undone("create", [created()], "card-declined")
        .then_events([cancelled()])
        .then_view(view("cancelled", json!({"code": "card-declined", "message": "The test says so."})));
    order.clone().given([cancelled()]).when_undone("create", [created()], "card-declined").then_nothing();
    order
        .given([confirmed()])
        .when_undone("create", [created()], "card-declined")
        .then_rejected("not-compensable");
}
