//! Sends an order out: everything that is reserved for it leaves the stock.
//!
//! | step | command | undo |
//! |---|---|---|
//! | `delivery.start`, which starts the saga | | `delivery-start-refused` with the reason |
//! | `order` | asks for the order, which must be `confirmed` | |
//! | `ship-<product>` for each line, all at once | `product.ship` | `stock-unshipped` |
//! | `depart` (pivot) | `delivery.confirm-start` | |
//!
//! A delivery that is starting can be neither held nor called off, so no change and no deletion of the order
//! gets past its first step until this saga has ended: the order stays as it was when the saga asked for it.

use kontor_sdk::prelude::*;
use kontor_sdk::services::Request;

use crate::delivery::{Delivery, DeliveryCommand};

pub(crate) struct ShipOrder;

/// The saga needs nothing of the event: the delivery has its order's id.
#[derive(Deserialize)]
pub(crate) struct StartRequested {}

impl Trigger for StartRequested {
    const AGGREGATE: &str = Delivery::NAME;
    const EVENT: &str = "delivery-start-requested";
}

/// An order: each service declares the part of others that it needs.
#[derive(Deserialize)]
struct Order {
    status: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    product_id: String,
}

impl Saga for ShipOrder {
    const NAME: &str = "ship-order";
    const DESCRIPTION: &str = "Takes an order out of the stock; sends it out or refuses to.";
    type Trigger = StartRequested;
    const COMMANDS: &[&str] = &["product.ship"];

    fn run(saga: &Run, StartRequested {}: StartRequested) -> Result<(), Error> {
        let id = &saga.trigger.aggregate_id;
        let order: Order = saga.query("order", Request::new("order", "order", json!({ "id": id })))?;
        order.must_be_confirmed()?;
        saga.steps(order.lines.iter().map(|line| ship(id, line)))?;
        saga.pivot("depart", Delivery::command(id, &DeliveryCommand::ConfirmStart {}))?;
        Ok(())
    }
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
