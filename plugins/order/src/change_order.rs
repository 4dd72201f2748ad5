//! Makes a change of an order: more or less of its products, paid anew.
//!
//! | step | command | undo |
//! |---|---|---|
//! | `order.update`, which starts the saga | | `order-update-reverted` with the reason |
//! | `hold` | `delivery.hold` | `delivery-resumed` |
//! | `reserve-<product>` for each that grows | `product.change-reservation` | `reservation-changed` back |
//! | `pay` | `payment.change` | `payment-changed` back |
//! | `complete` (pivot) | `order.complete-update` | |
//! | `release-<product>` for each that shrinks or goes | `product.change-reservation` or `release` | |
//! | `resume` | `delivery.resume` | |
//!
//! Steps for several lines of the order are taken all at once. Stock is given back after the pivot, where
//! nothing needs it any more. The delivery is held until the very end: nobody can send out, change or delete
//! an order whose reservations do not fit it yet.

use kontor_sdk::prelude::*;

use crate::bill::{Bill, Line};
use crate::order::{Order, OrderCommand};

pub(crate) struct ChangeOrder;

/// The bill before and after the change.
#[derive(Deserialize)]
pub(crate) struct UpdateRequested {
    previous: Bill,
    next: Bill,
}

impl Trigger for UpdateRequested {
    const AGGREGATE: &str = Order::NAME;
    const EVENT: &str = "order-update-requested";
}

impl Saga for ChangeOrder {
    const NAME: &str = "change-order";
    const DESCRIPTION: &str =
        "Reserves and pays what an order is changed to; makes the change or reverts it.";
    type Trigger = UpdateRequested;
    const COMMANDS: &[&str] = &[
        "delivery.hold",
        "product.change-reservation",
        "payment.change",
        "product.release",
        "delivery.resume",
    ];

    fn run(saga: &Run, UpdateRequested { previous, next }: UpdateRequested) -> Result<(), Error> {
        let id = &saga.trigger.aggregate_id;
        let changes = previous.lines.iter().map(|line| (line, next.quantity_of(&line.product_id)));
        let more = changes.clone().filter(|(line, quantity)| *quantity > line.quantity);
        let less = changes.filter(|(line, quantity)| *quantity < line.quantity);

        saga.step("hold", Command::to("delivery", id, "hold", json!({})))?;
        saga.steps(more.map(|(line, quantity)| reserve(id, line, quantity)))?;
        saga.step("pay", pay(id, &next))?;
        saga.pivot("complete", Order::command(id, &OrderCommand::CompleteUpdate {}))?;
        saga.steps(less.map(|(line, quantity)| release(id, line, quantity)))?;
        saga.step("resume", Command::to("delivery", id, "resume", json!({})))?;
        Ok(())
    }
}

fn reserve(order_id: &str, line: &Line, quantity: u64) -> (String, Command) {
    (format!("reserve-{}", line.product_id), change_reservation(order_id, line, quantity))
}

/// Gives back the stock that is no longer ordered: all of it if the quantity left is 0.
fn release(order_id: &str, line: &Line, quantity: u64) -> (String, Command) {
    let product_id = &line.product_id;
    let command = match quantity {
        0 => Command::to("product", product_id, "release", json!({ "order_id": order_id })),
        _ => change_reservation(order_id, line, quantity),
    };
    (format!("release-{product_id}"), command)
}

fn change_reservation(order_id: &str, line: &Line, quantity: u64) -> Command {
    let payload = json!({ "order_id": order_id, "quantity": quantity });
    Command::to("product", &line.product_id, "change-reservation", payload)
}

fn pay(order_id: &str, next: &Bill) -> Command {
    let payload = json!({ "amount": next.total, "methods": next.payment });
    Command::to("payment", order_id, "change", payload)
}
