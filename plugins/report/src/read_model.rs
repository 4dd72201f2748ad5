//! One row an order, filled from the events of orders, payments and deliveries.

use kontor_sdk::{db, prelude::*};

use DeliveryEvent::*;
use OrderEvent::*;
use PaymentEvent::*;

pub(crate) fn orders() -> ReadModel {
    ReadModel::new(2, include_str!("read_model.sql"))
        .follow("order", order)
        .follow("payment", payment)
        .follow("delivery", delivery)
}

/// A product in an order. Amounts are in the smallest unit of the currency.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Line {
    product_id: String,
    name: String,
    quantity: u64,
    unit_price: u64,
    amount: u64,
}

/// The part of the total that is paid in one way, in the smallest unit of the currency.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Part {
    method: String,
    amount: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Address {
    region: String,
    line: String,
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

fn order(event: &RecordedEvent, change: OrderEvent) -> Result<(), SqlError> {
    let id = &event.aggregate_id;
    match change {
        OrderCreated { user_id, lines, total, address } => {
            set(event, "status", "pending")?;
            db::execute(
                "UPDATE orders SET user_id = ?2, total = ?3, address = ?4, created_at_ms = ?5 WHERE id = ?1",
                params![id, user_id, total, db::json(&address), event.time_ms],
            )?;
            add_lines(id, &lines)
        }
        OrderConfirmed {} => set(event, "status", "confirmed"),
        OrderCancelled { reason } => set_status(event, "cancelled", Some(reason)),
        OrderUpdateRequested {} => set_status(event, "updating", None),
        OrderUpdated { lines, total } => {
            set(event, "status", "confirmed")?;
            set(event, "total", total)?;
            db::execute("DELETE FROM order_lines WHERE order_id = ?1", params![id])?;
            add_lines(id, &lines)
        }
        OrderDeleteRequested {} => set_status(event, "deleting", None),
        OrderDeleted {} => set(event, "status", "deleted"),
        OrderUpdateReverted { reason } | OrderDeleteReverted { reason } => {
            set_status(event, "confirmed", Some(reason))
        }
    }
}

/// Sets the status and why it is the one it is; a new request has no reason yet.
fn set_status(event: &RecordedEvent, status: &str, reason: Option<Rejection>) -> Result<(), SqlError> {
    set(event, "status", status)?;
    set(event, "reason", reason.as_ref().map(db::json))
}

fn add_lines(order_id: &str, lines: &[Line]) -> Result<(), SqlError> {
    for (number, line) in (1_u64..).zip(lines) {
        let Line { product_id, name, quantity, unit_price, amount } = line;
        db::execute(
            "INSERT INTO order_lines VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![order_id, number, product_id, name, *quantity, *unit_price, *amount],
        )?;
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

fn payment(event: &RecordedEvent, change: PaymentEvent) -> Result<(), SqlError> {
    match change {
        PaymentAuthorized { methods } => {
            set(event, "payment_status", "authorized")?;
            set(event, "payment", db::json(&methods))
        }
        PaymentChanged { methods } => set(event, "payment", db::json(&methods)),
        PaymentCancelled {} => set(event, "payment_status", "cancelled"),
    }
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

fn delivery(event: &RecordedEvent, change: DeliveryEvent) -> Result<(), SqlError> {
    let status = match change {
        DeliveryScheduled {} | DeliveryResumed {} | DeliveryStartRefused {} => "preparing",
        DeliveryHeld {} => "held",
        DeliveryCancelled {} => "cancelled",
        DeliveryStartRequested {} => "starting",
        DeliveryStarted {} => "in-transit",
        DeliveryCompleted {} => "delivered",
    };
    set(event, "delivery_status", status)
}

/// Sets one column of the order that the event belongs to, whether its row is there yet or not. Payments and deliveries
/// have their order's id.
fn set(event: &RecordedEvent, column: &str, value: impl Into<db::Value>) -> Result<(), SqlError> {
    db::execute(
        &format!(
            "INSERT INTO orders (id, {column}, updated_at_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET {column} = ?2, updated_at_ms = max(updated_at_ms, ?3)"
        ),
        params![&event.aggregate_id, value, event.time_ms],
    )?;
    Ok(())
}
