//! The screen of an order, with all services there and with some of them gone.

use kontor_testkit::{Service, json};
use serde_json::Value;

fn lines(tea: &str, pot: &str) -> Value {
    json!([
        {"product_id": "tea", "name": tea, "quantity": 3, "unit_price": 333, "amount": 999},
        {"product_id": "pot", "name": pot, "quantity": 1, "unit_price": 1, "amount": 1},
    ])
}

/// An order, as its own service shows it.
fn order() -> Value {
    json!({
        "id": "o1", "user_id": "u1", "status": "confirmed", "reason": null,
        "lines": lines("Tea", "Pot"), "total": 1000,
        "payment": [{"method": "card", "amount": 1000}],
        "address": {"region": "north", "line": "1 High Street"},
    })
}

fn payment() -> Value {
    json!({"status": "authorized", "amount": 1000, "methods": [{"method": "card", "amount": 1000}]})
}

fn screen(lines: Value, payment: Value, delivery: Value, unavailable: &[&str]) -> Value {
    json!({
        "id": "o1", "user_id": "u1", "status": "confirmed", "reason": null, "lines": lines, "total": 1000,
        "address": {"region": "north", "line": "1 High Street"},
        "payment": payment, "delivery": delivery, "unavailable": unavailable,
    })
}

/// The order service beside others that know the order o1. Products have been renamed since.
fn orders() -> Service {
    fn product(id: &str, name: &str) -> Value {
        json!({"id": id, "name": name, "unit_price": 1, "available": 5, "reserved": 0, "shipped": 0})
    }

    let id = |id: &str| json!({ "id": id });
    let mut payment = payment();
    payment["id"] = json!("o1");
    let delivery =
        json!({"id": "o1", "status": "preparing", "address": {"region": "north", "line": "1 High Street"}});
    Service::load("order")
        .answers("order", "order", id("o1"), order())
        .answers("payment", "payment", id("o1"), payment)
        .answers("delivery", "delivery", id("o1"), delivery)
        .answers("inventory", "product", id("tea"), product("tea", "Green tea"))
        .answers("inventory", "product", id("pot"), product("pot", "Tin pot"))
}

fn check(orders: Service, expected: Value) {
    orders.query("details", json!({"id": "o1"})).then(expected);
}

#[test]
fn the_screen_is_put_together_from_all_services() {
    let delivery = json!({"status": "preparing"});
    check(orders(), screen(lines("Green tea", "Tin pot"), payment(), delivery, &[]));
}

#[test]
fn a_service_that_is_gone_costs_its_part_and_no_more() {
    let (renamed, delivery) = (lines("Green tea", "Tin pot"), json!({"status": "preparing"}));
    check(orders().is_silent("delivery"), screen(renamed.clone(), payment(), Value::Null, &["delivery"]));
    check(orders().is_silent("payment"), screen(renamed, Value::Null, delivery.clone(), &["payment"]));
    check(orders().is_silent("inventory"), screen(lines("Tea", "Pot"), payment(), delivery, &["inventory"]));
    check(
        orders().is_silent("inventory").is_silent("payment").is_silent("delivery"),
        screen(lines("Tea", "Pot"), Value::Null, Value::Null, &["delivery", "inventory", "payment"]),
    );
}

#[test]
fn what_there_is_not_yet_is_not_unavailable() {
    let id = json!({"id": "o1"});
    let mut order = order();
    order["lines"] = json!([]);
    Service::load("order")
        .answers("order", "order", id.clone(), order)
        .refuses("payment", "payment", id.clone(), "not-found")
        .refuses("delivery", "delivery", id.clone(), "not-found")
        .query("details", id)
        .then(screen(json!([]), Value::Null, Value::Null, &[]));
}

#[test]
fn without_the_order_there_is_no_screen() {
    let id = json!({"id": "o1"});
    let unknown = Service::load("order").refuses("order", "order", id.clone(), "not-found");
    unknown.query("details", id.clone()).then_rejected("not-found");
    Service::load("order").is_silent("order").query("details", id).then_fault();
}
