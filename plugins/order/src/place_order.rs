//! Reserves, pays and schedules a new order.
//!
//! | step | command | undo |
//! |---|---|---|
//! | `order.create`, which starts the saga | | `order-cancelled` with the reason |
//! | `reserve-<product>` for each line, all at once | `product.reserve` | `stock-released` |
//! | `pay` | `payment.authorize` | `payment-cancelled` |
//! | `schedule` | `delivery.schedule` | `delivery-cancelled` |
//! | `confirm` (pivot) | `order.confirm` | |

use kontor_sdk::prelude::*;

use crate::bill::{Line, Part};
use crate::order::{Address, Order, OrderCommand};

pub(crate) struct PlaceOrder;

/// The part of the event that the saga needs.
#[derive(Deserialize)]
pub(crate) struct OrderCreated {
    lines: Vec<Line>,
    total: u64,
    payment: Vec<Part>,
    address: Address,
}

impl Trigger for OrderCreated {
    const AGGREGATE: &str = Order::NAME;
    const EVENT: &str = "order-created";
}

impl Saga for PlaceOrder {
    const NAME: &str = "place-order";
    const DESCRIPTION: &str = "Reserves, pays and schedules a new order; confirms or cancels it.";
    type Trigger = OrderCreated;
    const COMMANDS: &[&str] = &["product.reserve", "payment.authorize", "delivery.schedule"];

    fn run(saga: &Run, order: OrderCreated) -> Result<(), Error> {
        let id = &saga.trigger.aggregate_id;
        saga.steps(order.lines.iter().map(|line| reserve(id, line)))?;
        saga.step("pay", authorize(id, &order))?;
        saga.step("schedule", Command::to("delivery", id, "schedule", json!({ "address": order.address })))?;
        saga.pivot("confirm", Order::command(id, &OrderCommand::Confirm {}))?;
        Ok(())
    }
}

fn reserve(order_id: &str, Line { product_id, quantity, .. }: &Line) -> (String, Command) {
    let payload = json!({ "order_id": order_id, "quantity": quantity });
    (format!("reserve-{product_id}"), Command::to("product", product_id, "reserve", payload))
}

fn authorize(order_id: &str, order: &OrderCreated) -> Command {
    let payload = json!({ "amount": order.total, "methods": order.payment });
    Command::to("payment", order_id, "authorize", payload)
}
