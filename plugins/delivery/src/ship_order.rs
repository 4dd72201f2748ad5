//! Sends an order out: everything that is reserved for it leaves the stock.
//!
//! | step | command | undo |
//! |---|---|---|
//! | `delivery.start`, which starts the saga | | `delivery-start-refused` with the reason |
//! | `order` | asks for the order, which must be `confirmed` | |
//! | `ship-<product>` for each line, all at once | `product.ship` | `stock-unshipped` |
//! | `depart` (pivot) | `delivery.confirm-start` | |
//!
//! A delivery that is starting can be neither held nor called off, so no change and no deletion of the order gets past its
//! first step until this saga has ended: the order stays as it was when it was asked for.

use kontor_sdk::prelude::*;
use kontor_sdk::services::Request;

use crate::delivery::Delivery;

/// Nothing: the delivery has its order's id.
#[derive(Deserialize)]
pub(crate) struct Start {}

/// The order, as the order service shows it.
#[derive(Deserialize)]
struct Order {
    status: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    product_id: String,
}

pub(crate) fn ship_order(saga: &Saga, Start {}: Start) -> Result<(), Rejection> {
    let id = &saga.trigger.aggregate_id;
    let order: Order = saga.query("order", Request::new("order", "order", json!({ "id": id })))?;
    order.must_be_confirmed()?;
    saga.steps(order.lines.iter().map(|line| ship(id, line)))?;
    saga.pivot("depart", Command::to(Delivery::NAME, id, "confirm-start", json!({})))?;
    Ok(())
}

fn ship(order_id: &str, Line { product_id }: &Line) -> (String, Command) {
    let payload = json!({ "order_id": order_id });
    (format!("ship-{product_id}"), Command::to("product", product_id, "ship", payload))
}

impl Order {
    fn must_be_confirmed(&self) -> Result<(), Rejection> {
        if self.status != "confirmed" {
            let rejection = Rejection::new("order-not-confirmed", "Only a confirmed order is sent out.");
            return Err(rejection.with(json!({ "status": self.status })));
        }
        Ok(())
    }
}
