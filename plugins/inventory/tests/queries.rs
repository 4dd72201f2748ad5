//! The list of products.

use kontor_testkit::{Event, Service, event, json};
use serde_json::Value;

fn registered(quantity: u64) -> Event {
    event("product-registered", json!({"name": "Tea", "unit_price": 450, "quantity": quantity}))
}

fn product(id: &str, available: u64, reserved: u64, shipped: u64) -> Value {
    json!({
        "id": id, "name": "Tea", "unit_price": 450,
        "available": available, "reserved": reserved, "shipped": shipped,
    })
}

#[test]
fn every_event_moves_the_stock() {
    let quantity = |name: &str, quantity: u64| event(name, json!({"order_id": "o1", "quantity": quantity}));
    let changed = event("reservation-changed", json!({"order_id": "o1", "from": 3, "to": 5}));
    let story = [
        (registered(10), (10, 0, 0)),
        (event("stock-added", json!({"quantity": 4})), (14, 0, 0)),
        (event("stock-removed", json!({"quantity": 2})), (12, 0, 0)),
        (quantity("stock-reserved", 3), (9, 3, 0)),
        (changed, (7, 5, 0)),
        (quantity("stock-shipped", 5), (7, 0, 5)),
        (quantity("stock-unshipped", 5), (7, 5, 0)),
        (quantity("stock-released", 5), (12, 0, 0)),
    ];
    let inventory = Service::load("inventory");
    let mut history = inventory.events([]);
    for (event, (available, reserved, shipped)) in story {
        history = history.events([("product", "p1", event)]);
        let items = [product("p1", available, reserved, shipped)];
        history.query("products", json!({})).then(json!({"items": items, "next": null}));
    }
}

#[test]
fn products_are_paged_in_the_order_of_their_ids() {
    let table = [
        (json!({"limit": 2}), vec!["a", "b"], json!("b")),
        (json!({"limit": 2, "after": "b"}), vec!["c"], Value::Null),
        (json!({"limit": 3}), vec!["a", "b", "c"], Value::Null),
        (json!({"after": "c"}), vec![], Value::Null),
    ];
    let inventory = Service::load("inventory");
    let history = inventory.events(["b", "c", "a"].map(|id| ("product", id, registered(1))));
    for (page, ids, next) in table {
        let items: Vec<Value> = ids.iter().map(|id| product(id, 1, 0, 0)).collect();
        history.query("products", page).then(json!({"items": items, "next": next}));
    }
    for page in [json!({"limit": 0}), json!({"limit": 201}), json!({"color": "red"})] {
        history.query("products", page).then_rejected("invalid-arguments");
    }
}
