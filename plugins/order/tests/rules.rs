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
    event("order-cancelled", json!({"reason": reason("card-declined")}))
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
    let fault = outcome.then_fault();
    assert!(fault.detail.contains("inventory did not answer"));
    assert_eq!(fault.cause(), "inventory did not answer: inventory is silent in this test");
}

/// The order service beside the delivery of the order o1.
fn orders_beside_delivery(status: &str) -> Service {
    let delivery = json!({"id": "o1", "status": status, "address": address()});
    Service::load("order").answers("delivery", "delivery", json!({"id": "o1"}), delivery)
}

/// The three packets of tea of [`created`].
fn three() -> Value {
    json!({
        "lines": [{"product_id": "tea", "name": "Tea", "quantity": 3, "unit_price": 333, "amount": 999}],
        "total": 999,
        "payment": [{"method": "card", "amount": 900}, {"method": "points", "amount": 99}],
    })
}

/// Two packets of tea, paid with points.
fn two() -> Value {
    json!({
        "lines": [{"product_id": "tea", "name": "Tea", "quantity": 2, "unit_price": 333, "amount": 666}],
        "total": 666,
        "payment": [{"method": "points", "amount": 666}],
    })
}

fn change_to_two() -> Value {
    json!({"lines": [line("tea", 2)], "payment": [share("points", "1")]})
}

fn update_requested() -> Event {
    event("order-update-requested", json!({"previous": three(), "next": two()}))
}

fn updated() -> Event {
    event("order-updated", two())
}

fn delete_requested() -> Event {
    event("order-delete-requested", json!({"lines": three()["lines"]}))
}

fn deleted() -> Event {
    event("order-deleted", json!({}))
}

fn reason(code: &str) -> Value {
    json!({"code": code, "message": "The test says so."})
}

fn update_reverted() -> Event {
    event("order-update-reverted", json!({"reason": reason("card-declined")}))
}

fn delete_reverted() -> Event {
    event("order-delete-reverted", json!({"reason": reason("refund-refused")}))
}

#[test]
fn an_order_is_created_once() {
    let orders = orders();
    let again = wanted(&[line("tea", 1)], &[share("card", "1")]);
    orders.aggregate("order", "o1").given([created()]).when("create", again).then_rejected("already-exists");
}

#[test]
fn what_can_be_done_depends_on_the_status() {
    let commands = ["confirm", "update", "complete-update", "delete", "complete-delete"];
    let refused = [
        "order-not-pending",
        "order-not-confirmed",
        "order-not-updating",
        "order-not-confirmed",
        "order-not-deleting",
    ];
    let absent: &[(&str, Event)] = &[];
    let confirmed_order = &[("update", update_requested()), ("delete", delete_requested())];
    let table = [
        ("pending", vec![], &[("confirm", confirmed())] as &[_]),
        ("confirmed", vec![confirmed()], confirmed_order),
        ("cancelled", vec![cancelled()], absent),
        ("updating", vec![confirmed(), update_requested()], &[("complete-update", updated())]),
        ("confirmed", vec![confirmed(), update_requested(), update_reverted()], confirmed_order),
        ("deleting", vec![confirmed(), delete_requested()], &[("complete-delete", deleted())]),
        ("confirmed", vec![confirmed(), delete_requested(), delete_reverted()], confirmed_order),
        ("deleted", vec![confirmed(), delete_requested(), deleted()], absent),
    ];
    let orders = orders_beside_delivery("preparing");
    for (status, since, possible) in table {
        let order = orders.aggregate("order", "o1").given([created()]).given(since);
        for (command, code) in commands.into_iter().zip(refused) {
            let payload = if command == "update" { change_to_two() } else { json!({}) };
            let outcome = order.when(command, payload);
            match possible.iter().find(|(possible, _)| *possible == command) {
                Some((_, event)) => outcome.then_events([event.clone()]),
                None => outcome.then_rejected(code).with_details(json!({"status": status})),
            };
        }
    }
    for command in commands {
        let payload = if command == "update" { change_to_two() } else { json!({}) };
        orders.aggregate("order", "o1").when(command, payload).then_rejected("not-found");
    }
}

#[test]
fn an_order_shows_what_it_was_until_it_has_been_changed() {
    let orders = orders_beside_delivery("preparing");
    let order = orders.aggregate("order", "o1").given([created()]);
    order.when("confirm", json!({})).then_view(view("confirmed", Value::Null));
    let order = order.given([confirmed()]);
    order.when("update", change_to_two()).then_view(view("updating", Value::Null));
    order.when("delete", json!({})).then_view(view("deleting", Value::Null));
    let order = order.given([update_requested()]);
    let mut changed = view("confirmed", Value::Null);
    for field in ["lines", "total", "payment"] {
        changed[field] = two()[field].clone();
    }
    order.when("complete-update", json!({})).then_view(changed);
}

/// There is no inventory here: asking for a price would fail the test.
#[test]
fn a_change_keeps_the_prices_and_may_leave_lines_out() {
    let priced = |id: &str, quantity: u64, unit_price: u64| {
        json!({
            "product_id": id, "name": id, "quantity": quantity,
            "unit_price": unit_price, "amount": quantity * unit_price,
        })
    };
    let previous = json!({
        "lines": [priced("tea", 3, 300), priced("pot", 1, 2000), priced("cup", 2, 0)],
        "total": 2900,
        "payment": [{"method": "card", "amount": 2900}],
    });
    let created = json!({
        "user_id": "u1", "address": address(),
        "lines": previous["lines"], "total": previous["total"], "payment": previous["payment"],
    });
    let next = json!({
        "lines": [priced("cup", 2, 0), priced("tea", 5, 300)],
        "total": 1500,
        "payment": [{"method": "points", "amount": 501}, {"method": "card", "amount": 999}],
    });
    orders_beside_delivery("preparing")
        .aggregate("order", "o1")
        .given([event("order-created", created), confirmed()])
        .when(
            "update",
            json!({
                "lines": [line("cup", 2), line("tea", 5)],
                "payment": [share("points", "0.3337"), share("card", "0.6663")],
            }),
        )
        .then_events([event("order-update-requested", json!({"previous": previous, "next": next}))]);
}

#[test]
fn a_change_that_cannot_be_is_refused() {
    let card = [share("card", "1")];
    let tea = [line("tea", 1)];
    let about_tea = json!({"product_id": "tea"});
    let table = [
        (vec![], card.to_vec(), "no-lines", Value::Null),
        (vec![line("tea", 1), line("tea", 2)], card.to_vec(), "duplicate-product", about_tea.clone()),
        (vec![line("tea", 0)], card.to_vec(), "invalid-quantity", about_tea),
        (
            vec![line("tea", 1), line("pot", 1)],
            card.to_vec(),
            "product-not-in-order",
            json!({"product_id": "pot"}),
        ),
        (vec![line("tea", i64::MAX)], card.to_vec(), "amount-too-large", Value::Null),
        (tea.to_vec(), [&card[..], &card].concat(), "duplicate-method", Value::Null),
        (tea.to_vec(), vec![share("card", "0.9")], "invalid-payment-shares", Value::Null),
        (tea.to_vec(), vec![], "invalid-payment-shares", Value::Null),
    ];
    let orders = orders_beside_delivery("preparing");
    let order = orders.aggregate("order", "o1").given([created(), confirmed()]);
    for (lines, payment, code, details) in table {
        let payload = json!({"lines": lines, "payment": payment});
        order.when("update", payload).then_rejected(code).with_details(details);
    }
    for payload in
        [json!({}), json!({"lines": tea}), json!({"lines": vec![line("tea", 1); 101], "payment": card})]
    {
        order.when("update", payload).then_rejected("invalid-payload");
    }
}

#[test]
fn an_order_changes_only_while_its_delivery_is_in_preparation() {
    for status in ["held", "starting", "in-transit", "delivered", "cancelled"] {
        orders_beside_delivery(status)
            .aggregate("order", "o1")
            .given([created(), confirmed()])
            .when("update", change_to_two())
            .then_rejected("delivery-under-way")
            .with_details(json!({"status": status}));
    }
    let orders = Service::load("order").is_silent("delivery");
    let order = orders.aggregate("order", "o1").given([created(), confirmed()]);
    let outcome = order.when("update", change_to_two());
    assert!(outcome.then_fault().detail.contains("delivery did not answer"));
}

#[test]
fn undoing_what_started_a_saga_leaves_the_order_as_it_was_with_the_reason() {
    let table = [
        (vec![], "create", created(), cancelled(), "cancelled", "card-declined"),
        (
            vec![confirmed(), update_requested()],
            "update",
            update_requested(),
            update_reverted(),
            "confirmed",
            "card-declined",
        ),
        (
            vec![confirmed(), delete_requested()],
            "delete",
            delete_requested(),
            delete_reverted(),
            "confirmed",
            "refund-refused",
        ),
    ];
    let orders = orders_beside_delivery("preparing");
    for (since, command, started, undo, status, code) in table {
        let order = orders.aggregate("order", "o1").given([created()]).given(since);
        order
            .when_undone(command, [started.clone()], code)
            .then_events([undo.clone()])
            .then_view(view(status, reason(code)));
        order.given([undo]).when_undone(command, [started], code).then_nothing();
    }
}

#[test]
fn a_new_request_clears_the_reason_of_the_last() {
    let orders = orders_beside_delivery("preparing");
    for reverted in [[update_requested(), update_reverted()], [delete_requested(), delete_reverted()]] {
        let order = orders.aggregate("order", "o1").given([created(), confirmed()]).given(reverted);
        order.when("update", change_to_two()).then_view(view("updating", Value::Null));
        order.when("delete", json!({})).then_view(view("deleting", Value::Null));
    }
}

#[test]
fn what_a_saga_has_brought_to_its_end_is_not_undone() {
    let table = [
        (vec![confirmed()], "create", created()),
        (vec![confirmed(), update_requested(), updated()], "update", update_requested()),
        (vec![confirmed(), delete_requested(), deleted()], "delete", delete_requested()),
    ];
    let orders = orders();
    for (since, command, started) in table {
        let order = orders.aggregate("order", "o1").given([created()]).given(since);
        order.when_undone(command, [started], "card-declined").then_rejected("not-compensable");
    }
}
