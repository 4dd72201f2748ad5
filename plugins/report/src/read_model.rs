//! One row an order, filled from the events of orders, payments and deliveries, and totals of the orders that stand.
//!
//! An order stands from `order-confirmed` to `order-deleted`, whatever is tried to change in between. All totals follow from
//! the order's own stream, so they are exact however the streams of payments and deliveries are interleaved with it.

use kontor_sdk::{db, prelude::*};

use DeliveryEvent::*;
use OrderEvent::*;
use PaymentEvent::*;

pub(crate) fn orders() -> ReadModel {
    ReadModel::new(3, include_str!("read_model.sql"))
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

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    Pending,
    Confirmed,
    Cancelled,
    Updating,
    Deleting,
    Deleted,
}

impl From<Status> for db::Value {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => "pending",
            Status::Confirmed => "confirmed",
            Status::Cancelled => "cancelled",
            Status::Updating => "updating",
            Status::Deleting => "deleting",
            Status::Deleted => "deleted",
        }
        .into()
    }
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
    match change {
        OrderCreated { user_id, lines, total, address } => {
            db::execute(
                "INSERT INTO orders (id, user_id, status, total, address, created_at_ms, updated_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
                 ON CONFLICT (id) DO UPDATE SET
                     user_id = excluded.user_id, status = excluded.status, total = excluded.total,
                     address = excluded.address, created_at_ms = excluded.created_at_ms,
                     updated_at_ms = max(updated_at_ms, excluded.updated_at_ms)",
                params![
                    &event.aggregate_id,
                    user_id,
                    Status::Pending,
                    total,
                    db::json(&address),
                    event.time_ms
                ],
            )?;
            add_lines(event, &lines)
        }
        OrderConfirmed {} => {
            set_status(event, Status::Confirmed, None)?;
            count(event, 1)
        }
        OrderCancelled { reason } => set_status(event, Status::Cancelled, Some(reason)),
        OrderUpdateRequested {} => set_status(event, Status::Updating, None),
        OrderUpdated { lines, total } => {
            count(event, -1)?;
            set_status(event, Status::Confirmed, None)?;
            replace_lines(event, &lines, total)?;
            count(event, 1)
        }
        OrderDeleteRequested {} => set_status(event, Status::Deleting, None),
        OrderDeleted {} => {
            count(event, -1)?;
            set_status(event, Status::Deleted, None)
        }
        OrderUpdateReverted { reason } | OrderDeleteReverted { reason } => {
            set_status(event, Status::Confirmed, Some(reason))
        }
    }
}

/// Sets the status and why it is the one it is.
fn set_status(event: &RecordedEvent, status: Status, reason: Option<Rejection>) -> Result<(), SqlError> {
    let id = &event.aggregate_id;
    db::execute(
        "UPDATE orders SET status = ?2, reason = ?3, updated_at_ms = max(updated_at_ms, ?4) WHERE id = ?1",
        params![id, status, reason.as_ref().map(db::json), event.time_ms],
    )?;
    db::execute("UPDATE order_lines SET status = ?2 WHERE order_id = ?1", params![id, status])?;
    Ok(())
}

fn replace_lines(event: &RecordedEvent, lines: &[Line], total: u64) -> Result<(), SqlError> {
    let id = &event.aggregate_id;
    db::execute("UPDATE orders SET total = ?2 WHERE id = ?1", params![id, total])?;
    db::execute("DELETE FROM order_lines WHERE order_id = ?1", params![id])?;
    add_lines(event, lines)
}

fn add_lines(event: &RecordedEvent, lines: &[Line]) -> Result<(), SqlError> {
    for (number, line) in (1_u64..).zip(lines) {
        let Line { product_id, name, quantity, unit_price, amount } = line;
        db::execute(
            "INSERT INTO order_lines SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, status, created_at_ms
             FROM orders WHERE id = ?1",
            params![&event.aggregate_id, number, product_id, name, *quantity, *unit_price, *amount],
        )?;
    }
    Ok(())
}

/// Adds an order with its lines, as they are at the moment, to the totals; `sign` -1 takes it away again.
fn count(event: &RecordedEvent, sign: i64) -> Result<(), SqlError> {
    let id = &event.aggregate_id;
    db::execute(
        "INSERT OR IGNORE INTO products SELECT product_id, name FROM order_lines WHERE order_id = ?1",
        params![id],
    )?;
    db::execute(
        "INSERT INTO sales_by_product
         SELECT product_id, date(created_at_ms / 1000, 'unixepoch'), ?2, ?2 * quantity, ?2 * amount
         FROM order_lines WHERE order_id = ?1
         ON CONFLICT (product_id, day) DO UPDATE SET
             orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
             amount = amount + excluded.amount",
        params![id, sign],
    )?;
    db::execute(
        "INSERT INTO sales_by_day
         SELECT date(created_at_ms / 1000, 'unixepoch'), ?2, ?2 * sum(quantity), ?2 * sum(amount)
         FROM order_lines WHERE order_id = ?1 GROUP BY order_id
         ON CONFLICT (day) DO UPDATE SET
             orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
             amount = amount + excluded.amount",
        params![id, sign],
    )?;
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
    let (status, methods) = match change {
        PaymentAuthorized { methods } | PaymentChanged { methods } => ("authorized", Some(methods)),
        PaymentCancelled {} => ("cancelled", None),
    };
    db::execute(
        "INSERT INTO orders (id, payment_status, payment, updated_at_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET
             payment_status = excluded.payment_status, payment = coalesce(excluded.payment, payment),
             updated_at_ms = max(updated_at_ms, excluded.updated_at_ms)",
        params![&event.aggregate_id, status, methods.as_ref().map(db::json), event.time_ms],
    )?;
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

fn delivery(event: &RecordedEvent, change: DeliveryEvent) -> Result<(), SqlError> {
    let status = match change {
        DeliveryScheduled {} | DeliveryResumed {} | DeliveryStartRefused {} => "preparing",
        DeliveryHeld {} => "held",
        DeliveryCancelled {} => "cancelled",
        DeliveryStartRequested {} => "starting",
        DeliveryStarted {} => "in-transit",
        DeliveryCompleted {} => "delivered",
    };
    db::execute(
        "INSERT INTO orders (id, delivery_status, updated_at_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET
             delivery_status = excluded.delivery_status,
             updated_at_ms = max(updated_at_ms, excluded.updated_at_ms)",
        params![&event.aggregate_id, status, event.time_ms],
    )?;
    Ok(())
}
