//! Deletes an order that has not been sent out: no delivery, the money back, the stock released.
//!
//! | step | command | undo |
//! |---|---|---|
//! | `order.delete`, which starts the saga | | `order-delete-reverted` with the reason |
//! | `cancel-delivery` | `delivery.cancel` | `delivery-scheduled` again |
//! | `refund` | `payment.cancel` | `payment-authorized` again |
//! | `complete` (pivot) | `order.complete-delete` | |
//! | `release-<product>` for each line, all at once | `product.release` | |
//!
//! The stock is released after the pivot: somebody else may take it at once, so it could not be had back.

use kontor_sdk::prelude::*;

use crate::bill::Line;
use crate::order::{Order, OrderCommand};

pub(crate) struct DeleteOrder;

/// The lines of the order, each with its reservation.
#[derive(Deserialize)]
pub(crate) struct DeleteRequested {
    lines: Vec<Line>,
}

impl Trigger for DeleteRequested {
    const AGGREGATE: &str = Order::NAME;
    const EVENT: &str = "order-delete-requested";
}

impl Saga for DeleteOrder {
    const NAME: &str = "delete-order";
    const DESCRIPTION: &str =
        "Calls off the delivery, the payment and the reservations of an order; deletes it or reverts that.";
    type Trigger = DeleteRequested;
    const COMMANDS: &[&str] = &["delivery.cancel", "payment.cancel", "product.release"];

    fn run(saga: &Run, DeleteRequested { lines }: DeleteRequested) -> Result<(), Error> {
        let id = &saga.trigger.aggregate_id;
        saga.step("cancel-delivery", Command::to("delivery", id, "cancel", json!({})))?;
        saga.step("refund", Command::to("payment", id, "cancel", json!({})))?;
        saga.pivot("complete", Order::command(id, &OrderCommand::CompleteDelete {}))?;
        saga.steps(lines.iter().map(|line| release(id, line)))?;
        Ok(())
    }
}

fn release(order_id: &str, Line { product_id, .. }: &Line) -> (String, Command) {
    let payload = json!({ "order_id": order_id });
    (format!("release-{product_id}"), Command::to("product", product_id, "release", payload))
}
