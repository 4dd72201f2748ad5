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
use crate::order::Order;

/// What the order holds.
#[derive(Deserialize)]
pub(crate) struct Deletion {
    lines: Vec<Line>,
}

pub(crate) fn delete_order(saga: &Saga, Deletion { lines }: Deletion) -> Result<(), Rejection> {
    let id = &saga.trigger.aggregate_id;
    saga.step("cancel-delivery", Command::to("delivery", id, "cancel", json!({})))?;
    saga.step("refund", Command::to("payment", id, "cancel", json!({})))?;
    saga.pivot("complete", Command::to(Order::NAME, id, "complete-delete", json!({})))?;
    saga.steps(lines.iter().map(|line| release(id, line)))?;
    Ok(())
}

fn release(order_id: &str, Line { product_id, .. }: &Line) -> (String, Command) {
    let payload = json!({ "order_id": order_id });
    (format!("release-{product_id}"), Command::to("product", product_id, "release", payload))
}
