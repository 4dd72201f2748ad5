//! The sagas of orders, with each step rejected in turn: the undos, and their order.

use kontor_testkit::{Event, Service, Story, command, event, json};
use serde_json::Value;

fn line(product: &str, quantity: u64) -> Value {
    json!({
        "product_id": product,
        "name": product,
        "quantity": quantity,
        "unit_price": 10,
        "amount": 10 * quantity,
    })
}

fn bill(lines: &[Value]) -> Value {
    let total: u64 = lines.iter().filter_map(|line| line["amount"].as_u64()).sum();
    json!({"lines": lines, "total": total, "payment": by_card(total)})
}

fn by_card(amount: u64) -> Value {
    json!([{"method": "card", "amount": amount}])
}

fn address() -> Value {
    json!({"region": "north", "line": "1 High Street"})
}

fn created() -> Event {
    let mut order = bill(&[line("tea", 3), line("pot", 1)]);
    order["user_id"] = json!("u1");
    order["address"] = address();
    event("order-created", order)
}

/// More tea, a new pan, fewer cups and no pot.
fn update_requested() -> Event {
    let previous = bill(&[line("tea", 3), line("pan", 1), line("cup", 4), line("pot", 1), line("jug", 2)]);
    let next = bill(&[line("tea", 5), line("pan", 2), line("cup", 1), line("jug", 2)]);
    event("order-update-requested", json!({"previous": previous, "next": next}))
}

fn delete_requested() -> Event {
    event("order-delete-requested", json!({"lines": [line("tea", 3), line("pot", 1)]}))
}

/// The course of a saga when one of its steps is rejected before the pivot.
struct Refusal {
    step: &'static str,
    code: &'static str,
    /// The steps taken by then, the rejected one included.
    steps: &'static [&'static str],
    undoes: &'static [&'static str],
}

fn check_refusals(orders: &Service, saga: &str, trigger: &Event, table: &[Refusal]) {
    for Refusal { step, code, steps, undoes } in table {
        orders
            .saga(saga)
            .when_step(step)
            .rejects(code)
            .on("order", "o1", trigger.clone())
            .then_steps(steps.iter().copied())
            .then_undoes(undoes.iter().copied())
            .then_compensated(code);
    }
}

/// Checks that a step that fails after the pivot leaves the saga to an operator, with nothing undone.
fn check_failure_after_pivot(story: &Story, step: &str) {
    story.then_undoes([]).then_parked(&format!("the step {step} failed after the pivot"));
}

#[test]
fn placing_an_order_reserves_pays_and_schedules() {
    Service::load("order")
        .saga("place-order")
        .on("order", "o1", created())
        .then_steps(["reserve-tea", "reserve-pot", "pay", "schedule", "confirm"])
        .then_sends(
            "reserve-tea",
            &command("product", "tea", "reserve", json!({"order_id": "o1", "quantity": 3})),
        )
        .then_sends(
            "reserve-pot",
            &command("product", "pot", "reserve", json!({"order_id": "o1", "quantity": 1})),
        )
        .then_sends(
            "pay",
            &command("payment", "o1", "authorize", json!({"amount": 40, "methods": by_card(40)})),
        )
        .then_sends("schedule", &command("delivery", "o1", "schedule", json!({"address": address()})))
        .then_sends("confirm", &command("order", "o1", "confirm", json!({})))
        .then_undoes([])
        .then_completed();
}

#[test]
fn an_order_that_cannot_be_placed_is_cancelled_and_leaves_nothing_behind() {
    let table = [
        Refusal {
            step: "reserve-tea",
            code: "insufficient-stock",
            steps: &["reserve-tea", "reserve-pot"],
            undoes: &["reserve-pot", "trigger"],
        },
        Refusal {
            step: "reserve-pot",
            code: "insufficient-stock",
            steps: &["reserve-tea", "reserve-pot"],
            undoes: &["reserve-tea", "trigger"],
        },
        Refusal {
            step: "pay",
            code: "card-declined",
            steps: &["reserve-tea", "reserve-pot", "pay"],
            undoes: &["reserve-pot", "reserve-tea", "trigger"],
        },
        Refusal {
            step: "schedule",
            code: "undeliverable",
            steps: &["reserve-tea", "reserve-pot", "pay", "schedule"],
            undoes: &["pay", "reserve-pot", "reserve-tea", "trigger"],
        },
        Refusal {
            step: "confirm",
            code: "order-not-pending",
            steps: &["reserve-tea", "reserve-pot", "pay", "schedule", "confirm"],
            undoes: &["schedule", "pay", "reserve-pot", "reserve-tea", "trigger"],
        },
    ];
    check_refusals(&Service::load("order"), "place-order", &created(), &table);
}

#[test]
fn a_step_that_fails_is_undone_too_because_it_may_have_had_an_effect() {
    Service::load("order")
        .saga("place-order")
        .when_step("pay")
        .fails()
        .on("order", "o1", created())
        .then_undoes(["pay", "reserve-pot", "reserve-tea", "trigger"])
        .then_compensated("step-failed");
}

#[test]
fn an_undo_that_fails_does_not_keep_the_others() {
    Service::load("order")
        .saga("place-order")
        .when_step("schedule")
        .rejects("undeliverable")
        .when_step("reserve-pot/undo")
        .fails()
        .on("order", "o1", created())
        .then_undoes(["pay", "reserve-pot", "reserve-tea", "trigger"])
        .then_parked("not undone: reserve-pot");
}

#[test]
fn changing_an_order_takes_what_is_more_before_the_pivot_and_gives_back_what_is_less_after_it() {
    let change = |product: &str, quantity: u64| {
        command("product", product, "change-reservation", json!({"order_id": "o1", "quantity": quantity}))
    };
    Service::load("order")
        .saga("change-order")
        .on("order", "o1", update_requested())
        .then_steps([
            "hold",
            "reserve-tea",
            "reserve-pan",
            "pay",
            "complete",
            "release-cup",
            "release-pot",
            "resume",
        ])
        .then_sends("hold", &command("delivery", "o1", "hold", json!({})))
        .then_sends("reserve-tea", &change("tea", 5))
        .then_sends("reserve-pan", &change("pan", 2))
        .then_sends(
            "pay",
            &command("payment", "o1", "change", json!({"amount": 100, "methods": by_card(100)})),
        )
        .then_sends("complete", &command("order", "o1", "complete-update", json!({})))
        .then_sends("release-cup", &change("cup", 1))
        .then_sends("release-pot", &command("product", "pot", "release", json!({"order_id": "o1"})))
        .then_sends("resume", &command("delivery", "o1", "resume", json!({})))
        .then_completed();
}

#[test]
fn a_change_that_cannot_be_made_leaves_the_order_as_it_was() {
    let table = [
        Refusal { step: "hold", code: "delivery-under-way", steps: &["hold"], undoes: &["trigger"] },
        Refusal {
            step: "reserve-tea",
            code: "insufficient-stock",
            steps: &["hold", "reserve-tea", "reserve-pan"],
            undoes: &["reserve-pan", "hold", "trigger"],
        },
        Refusal {
            step: "reserve-pan",
            code: "insufficient-stock",
            steps: &["hold", "reserve-tea", "reserve-pan"],
            undoes: &["reserve-tea", "hold", "trigger"],
        },
        Refusal {
            step: "pay",
            code: "card-declined",
            steps: &["hold", "reserve-tea", "reserve-pan", "pay"],
            undoes: &["reserve-pan", "reserve-tea", "hold", "trigger"],
        },
        Refusal {
            step: "complete",
            code: "order-not-updating",
            steps: &["hold", "reserve-tea", "reserve-pan", "pay", "complete"],
            undoes: &["pay", "reserve-pan", "reserve-tea", "hold", "trigger"],
        },
    ];
    check_refusals(&Service::load("order"), "change-order", &update_requested(), &table);
}

#[test]
fn a_change_that_is_made_is_never_taken_back() {
    let orders = Service::load("order");
    for step in ["release-cup", "release-pot", "resume"] {
        let story = orders.saga("change-order").when_step(step).fails().on("order", "o1", update_requested());
        check_failure_after_pivot(&story, step);
    }
}

#[test]
fn deleting_an_order_releases_its_stock_after_the_pivot() {
    Service::load("order")
        .saga("delete-order")
        .on("order", "o1", delete_requested())
        .then_steps(["cancel-delivery", "refund", "complete", "release-tea", "release-pot"])
        .then_sends("cancel-delivery", &command("delivery", "o1", "cancel", json!({})))
        .then_sends("refund", &command("payment", "o1", "cancel", json!({})))
        .then_sends("complete", &command("order", "o1", "complete-delete", json!({})))
        .then_sends("release-tea", &command("product", "tea", "release", json!({"order_id": "o1"})))
        .then_sends("release-pot", &command("product", "pot", "release", json!({"order_id": "o1"})))
        .then_completed();
}

#[test]
fn an_order_that_cannot_be_deleted_stays_as_it_was() {
    let table = [
        Refusal {
            step: "cancel-delivery",
            code: "delivery-under-way",
            steps: &["cancel-delivery"],
            undoes: &["trigger"],
        },
        Refusal {
            step: "refund",
            code: "refund-refused",
            steps: &["cancel-delivery", "refund"],
            undoes: &["cancel-delivery", "trigger"],
        },
        Refusal {
            step: "complete",
            code: "order-not-deleting",
            steps: &["cancel-delivery", "refund", "complete"],
            undoes: &["refund", "cancel-delivery", "trigger"],
        },
    ];
    let orders = Service::load("order");
    check_refusals(&orders, "delete-order", &delete_requested(), &table);
    let story =
        orders.saga("delete-order").when_step("release-pot").fails().on("order", "o1", delete_requested());
    check_failure_after_pivot(&story, "release-pot");
}
