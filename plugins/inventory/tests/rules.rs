//! The rules of products and their stock.

use std::sync::LazyLock;

use kontor_testkit::{Aggregate, Event, Service, event, json};

const MAX: u64 = 9_007_199_254_740_991;

fn registered(quantity: u64) -> Event {
    event("product-registered", json!({"name": "Tea", "unit_price": 450, "quantity": quantity}))
}

fn reserved(order: &str, quantity: u64) -> Event {
    event("stock-reserved", json!({"order_id": order, "quantity": quantity}))
}

fn changed(order: &str, from: u64, to: u64) -> Event {
    event("reservation-changed", json!({"order_id": order, "from": from, "to": to}))
}

fn released(order: &str, quantity: u64) -> Event {
    event("stock-released", json!({"order_id": order, "quantity": quantity}))
}

fn shipped(order: &str, quantity: u64) -> Event {
    event("stock-shipped", json!({"order_id": order, "quantity": quantity}))
}

fn unshipped(order: &str, quantity: u64) -> Event {
    event("stock-unshipped", json!({"order_id": order, "quantity": quantity}))
}

/// The product p1, with what happened to it.
fn product_after(given: &[Event]) -> Aggregate<'static> {
    static INVENTORY: LazyLock<Service> = LazyLock::new(|| Service::load("inventory"));
    INVENTORY.aggregate("product", "p1").given(given.iter().cloned())
}

#[test]
fn a_product_is_registered_once() {
    let tea = json!({"name": "Tea", "unit_price": 450, "quantity": 2});
    let product = product_after(&[]);
    product.when("register", tea.clone()).then_events([registered(2)]).then_view(json!({
        "id": "p1", "name": "Tea", "unit_price": 450, "available": 2, "reserved": 0, "shipped": 0,
    }));
    let product = product_after(&[registered(2)]);
    product.when("register", tea).then_rejected("already-exists");
}

#[test]
fn nothing_can_be_done_with_a_product_that_does_not_exist() {
    let commands = [
        ("add-stock", json!({"quantity": 1})),
        ("remove-stock", json!({"quantity": 1})),
        ("reserve", json!({"order_id": "o1", "quantity": 1})),
        ("change-reservation", json!({"order_id": "o1", "quantity": 1})),
        ("release", json!({"order_id": "o1"})),
        ("ship", json!({"order_id": "o1"})),
    ];
    let product = product_after(&[]);
    for (command, payload) in commands {
        product.when(command, payload).then_rejected("not-found");
    }
}

#[test]
fn payloads_that_make_no_sense_are_invalid() {
    let commands = [
        ("register", json!({"name": "", "unit_price": 1, "quantity": 1})),
        ("register", json!({"name": "Tea", "unit_price": -1, "quantity": 1})),
        ("register", json!({"name": "Tea", "unit_price": 4.5, "quantity": 1})),
        ("register", json!({"name": "Tea", "unit_price": MAX + 1, "quantity": 1})),
        ("register", json!({"name": "Tea", "unit_price": 1})),
        ("add-stock", json!({"quantity": 0})),
        ("remove-stock", json!({"quantity": "1"})),
        ("reserve", json!({"order_id": "o1", "quantity": 0})),
        ("reserve", json!({"order_id": "o1", "quantity": 1, "color": "green"})),
        ("change-reservation", json!({"order_id": "o1", "quantity": 0})),
        ("release", json!({})),
    ];
    let product = product_after(&[registered(2)]);
    for (command, payload) in commands {
        product.when(command, payload).then_rejected("invalid-payload");
    }
}

#[test]
fn stock_comes_in_and_goes_out() {
    let product = product_after(&[registered(2)]);
    product
        .when("add-stock", json!({"quantity": 3}))
        .then_events([event("stock-added", json!({"quantity": 3}))])
        .then_view(json!({
            "id": "p1", "name": "Tea", "unit_price": 450, "available": 5, "reserved": 0, "shipped": 0,
        }));
    product
        .when("remove-stock", json!({"quantity": 2}))
        .then_events([event("stock-removed", json!({"quantity": 2}))]);
    product.when("add-stock", json!({"quantity": MAX - 1})).then_rejected("amount-too-large");
    let product = product_after(&[registered(5), reserved("o1", 4)]);
    product
        .when("remove-stock", json!({"quantity": 2}))
        .then_rejected("insufficient-stock")
        .with_details(json!({"available": 1}));
}

#[test]
fn an_order_reserves_once_and_no_more_than_there_is() {
    let product = product_after(&[registered(5), reserved("o1", 2)]);
    product
        .when("reserve", json!({"order_id": "o2", "quantity": 3}))
        .then_events([reserved("o2", 3)])
        .then_view(json!({
            "id": "p1", "name": "Tea", "unit_price": 450, "available": 0, "reserved": 5, "shipped": 0,
        }));
    product
        .when("reserve", json!({"order_id": "o2", "quantity": 4}))
        .then_rejected("insufficient-stock")
        .with_details(json!({"available": 3}));
    product.when("reserve", json!({"order_id": "o1", "quantity": 1})).then_rejected("already-reserved");
}

#[test]
fn a_reservation_grows_into_what_is_available_and_shrinks() {
    let product = product_after(&[registered(5), reserved("o1", 2)]);
    for to in [1, 5] {
        product
            .when("change-reservation", json!({"order_id": "o1", "quantity": to}))
            .then_events([changed("o1", 2, to)])
            .then_view(json!({
                "id": "p1", "name": "Tea", "unit_price": 450,
                "available": 5 - to, "reserved": to, "shipped": 0,
            }));
    }
    product
        .when("change-reservation", json!({"order_id": "o1", "quantity": 6}))
        .then_rejected("insufficient-stock")
        .with_details(json!({"available": 3}));
}

#[test]
fn what_is_reserved_is_released_or_shipped_once() {
    for (command, done) in [("release", released("o1", 2)), ("ship", shipped("o1", 2))] {
        let product = product_after(&[registered(5), reserved("o1", 2)]);
        product.when(command, json!({"order_id": "o1"})).then_events([done.clone()]);
        let product = product_after(&[registered(5), reserved("o1", 2), done]);
        for again in ["release", "ship"] {
            product.when(again, json!({"order_id": "o1"})).then_rejected("not-reserved");
        }
        product
            .when("change-reservation", json!({"order_id": "o1", "quantity": 1}))
            .then_rejected("not-reserved");
    }
}

#[test]
fn every_step_of_a_saga_can_be_undone() {
    let start = [registered(5), reserved("o1", 2)];
    let table = [
        ("reserve", reserved("o1", 2), vec![], released("o1", 2)),
        ("change-reservation", changed("o1", 2, 4), vec![changed("o1", 2, 4)], changed("o1", 4, 2)),
        ("change-reservation", changed("o1", 2, 1), vec![changed("o1", 2, 1)], changed("o1", 1, 2)),
        ("release", released("o1", 2), vec![released("o1", 2)], reserved("o1", 2)),
        ("ship", shipped("o1", 2), vec![shipped("o1", 2)], unshipped("o1", 2)),
    ];
    for (command, done, since, undo) in table {
        let product = product_after(&[&start[..], &since].concat());
        product.when_undone(command, [done], "card-declined").then_events([undo]);
    }
}

#[test]
fn what_is_no_longer_there_needs_no_undo() {
    let table = [
        ("reserve", vec![reserved("o1", 2), released("o1", 2)], 0),
        ("reserve", vec![reserved("o1", 2), shipped("o1", 2)], 0),
        ("change-reservation", vec![reserved("o1", 2), changed("o1", 2, 3), released("o1", 3)], 1),
        ("release", vec![reserved("o1", 2), released("o1", 2), reserved("o1", 1)], 1),
        ("ship", vec![reserved("o1", 2), shipped("o1", 2), unshipped("o1", 2)], 1),
    ];
    for (command, since, undone) in table {
        let done = since[undone].clone();
        let product = product_after(&[&[registered(5)], &since[..]].concat());
        product.when_undone(command, [done], "card-declined").then_nothing();
    }
}

#[test]
fn an_undo_never_oversells() {
    let table = [
        ("release", vec![reserved("o1", 4), released("o1", 4), reserved("o2", 3)], 1, 2),
        ("change-reservation", vec![reserved("o1", 4), changed("o1", 4, 1), reserved("o2", 3)], 1, 1),
    ];
    for (command, since, undone, available) in table {
        let done = since[undone].clone();
        let product = product_after(&[&[registered(5)], &since[..]].concat());
        product
            .when_undone(command, [done], "card-declined")
            .then_rejected("insufficient-stock")
            .with_details(json!({"available": available}));
    }
}
