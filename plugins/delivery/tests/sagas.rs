//! The saga that sends an order out, with each step rejected in turn: the undos, and their order.

use kontor_testkit::{Event, Service, command, event, json};

/// The deliveries of a shop in which the order `o1` has this status.
fn deliveries(status: &str) -> Service {
    let order = json!({"status": status, "lines": [{"product_id": "tea"}, {"product_id": "pot"}]});
    Service::load("delivery").answers("order", "order", json!({"id": "o1"}), order)
}

fn start_requested() -> Event {
    event("delivery-start-requested", json!({}))
}

#[test]
fn sending_an_order_out_takes_all_of_it_out_of_the_stock() {
    let ship = |product: &str| command("product", product, "ship", json!({"order_id": "o1"}));
    deliveries("confirmed")
        .saga("ship-order")
        .on("delivery", "o1", start_requested())
        .then_steps(["order", "ship-tea", "ship-pot", "depart"])
        .then_sends("ship-tea", &ship("tea"))
        .then_sends("ship-pot", &ship("pot"))
        .then_sends("depart", &command("delivery", "o1", "confirm-start", json!({})))
        .then_undoes([])
        .then_completed();
}

#[test]
fn an_order_that_cannot_be_sent_out_stays_in_the_stock() {
    let table: [(&str, &str, &[&str], &[&str]); 3] = [
        ("ship-tea", "not-reserved", &["order", "ship-tea", "ship-pot"], &["ship-pot", "trigger"]),
        ("ship-pot", "not-reserved", &["order", "ship-tea", "ship-pot"], &["ship-tea", "trigger"]),
        (
            "depart",
            "delivery-not-starting",
            &["order", "ship-tea", "ship-pot", "depart"],
            &["ship-pot", "ship-tea", "trigger"],
        ),
    ];
    let deliveries = deliveries("confirmed");
    for (step, code, steps, undoes) in table {
        deliveries
            .saga("ship-order")
            .when_step(step)
            .rejects(code)
            .on("delivery", "o1", start_requested())
            .then_steps(steps.iter().copied())
            .then_undoes(undoes.iter().copied())
            .then_compensated(code);
    }
}

#[test]
fn only_a_confirmed_order_is_sent_out() {
    for status in ["pending", "updating", "deleting", "cancelled", "deleted"] {
        deliveries(status)
            .saga("ship-order")
            .on("delivery", "o1", start_requested())
            .then_steps(["order"])
            .then_undoes(["trigger"])
            .then_compensated("order-not-confirmed");
    }
    Service::load("delivery")
        .is_silent("order")
        .saga("ship-order")
        .on("delivery", "o1", start_requested())
        .then_undoes(["trigger"])
        .then_compensated("step-failed");
}
