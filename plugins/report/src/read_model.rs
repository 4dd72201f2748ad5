//! One row an order, filled from the events of orders, payments and deliveries, and totals of the orders that
//! stand.
//!
//! A batch of events holds most of an order's life, so orders are changed in memory and written once a batch.
//!
//! Each enum declares the events of another service that this one needs, and only their fields that it reads.

use kontor_sdk::prelude::*;

use crate::batch::Orders;
use crate::row::{Address, Line, Part, Status};

pub(crate) fn orders() -> ReadModel<Orders> {
    ReadModel::in_batches(3, include_str!("read_model.sql"))
        .fold("order", order)
        .fold("payment", payment)
        .fold("delivery", delivery)
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum OrderEvent {
    OrderCreated { user_id: String, lines: Vec<Line>, total: u64, address: Address },
    OrderConfirmed {},
    OrderCancelled { reason: Rejection },
    OrderUpdateRequested {},
    OrderUpdated { lines: Vec<Line>, total: u64 },
    OrderUpdateReverted { reason: Rejection },
    OrderDeleteRequested {},
    OrderDeleted {},
    OrderDeleteReverted { reason: Rejection },
}

fn order(orders: &mut Orders, event: &RecordedEvent, change: OrderEvent) -> Result<(), SqlError> {
    let order = orders.of(event);
    match change {
        OrderEvent::OrderCreated { user_id, lines, total, address } => {
            order.status = Some(Status::Pending);
            order.created_at_ms = Some(event.time_ms);
            (order.user_id, order.address) = (Some(user_id), Some(address));
            (order.lines, order.total) = (lines, Some(total));
        }
        OrderEvent::OrderConfirmed {} => order.becomes(Status::Confirmed, None),
        OrderEvent::OrderCancelled { reason } => order.becomes(Status::Cancelled, Some(reason)),
        OrderEvent::OrderUpdateRequested {} => order.becomes(Status::Updating, None),
        OrderEvent::OrderUpdated { lines, total } => {
            order.becomes(Status::Confirmed, None);
            (order.lines, order.total) = (lines, Some(total));
        }
        OrderEvent::OrderDeleteRequested {} => order.becomes(Status::Deleting, None),
        OrderEvent::OrderDeleted {} => order.becomes(Status::Deleted, None),
        OrderEvent::OrderUpdateReverted { reason } | OrderEvent::OrderDeleteReverted { reason } => {
            order.becomes(Status::Confirmed, Some(reason));
        }
    }
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum PaymentEvent {
    PaymentAuthorized { methods: Vec<Part> },
    PaymentChanged { methods: Vec<Part> },
    PaymentCancelled {},
}

fn payment(orders: &mut Orders, event: &RecordedEvent, change: PaymentEvent) -> Result<(), SqlError> {
    let order = orders.of(event);
    match change {
        PaymentEvent::PaymentAuthorized { methods } | PaymentEvent::PaymentChanged { methods } => {
            order.payment_status = Some("authorized".to_owned());
            order.payment = Some(methods);
        }
        PaymentEvent::PaymentCancelled {} => order.payment_status = Some("cancelled".to_owned()),
    }
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum DeliveryEvent {
    DeliveryScheduled {},
    DeliveryHeld {},
    DeliveryResumed {},
    DeliveryCancelled {},
    DeliveryStartRequested {},
    DeliveryStartRefused {},
    DeliveryStarted {},
    DeliveryCompleted {},
}

fn delivery(orders: &mut Orders, event: &RecordedEvent, change: DeliveryEvent) -> Result<(), SqlError> {
    let status = match change {
        DeliveryEvent::DeliveryScheduled {}
        | DeliveryEvent::DeliveryResumed {}
        | DeliveryEvent::DeliveryStartRefused {} => "preparing",
        DeliveryEvent::DeliveryHeld {} => "held",
        DeliveryEvent::DeliveryCancelled {} => "cancelled",
        DeliveryEvent::DeliveryStartRequested {} => "starting",
        DeliveryEvent::DeliveryStarted {} => "in-transit",
        DeliveryEvent::DeliveryCompleted {} => "delivered",
    };
    orders.of(event).delivery_status = Some(status.to_owned());
    Ok(())
}
