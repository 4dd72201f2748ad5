//! Questions about orders.

use kontor_sdk::{db, prelude::*};

use crate::read_model::{Address, Line, Part};

/// One order with its payment and its delivery. Times are milliseconds since 1970-01-01 UTC.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReportedOrder {
    id: String,
    user_id: String,
    status: String,
    /// Why it was cancelled, or why the last change or deletion was not made; null otherwise.
    reason: Option<Rejection>,
    lines: Vec<Line>,
    /// In the smallest unit of the currency.
    total: u64,
    address: Address,
    /// Null if it has not been paid.
    payment_status: Option<String>,
    payment: Option<Vec<Part>>,
    /// Null if no delivery has been planned.
    delivery_status: Option<String>,
    created_at_ms: u64,
    updated_at_ms: u64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderId {
    id: String,
}

pub(crate) fn order(OrderId { id }: OrderId) -> Result<ReportedOrder, Failure> {
    let order = db::query_one(
        "SELECT orders.*, (
             SELECT json_group_array(json_object('product_id', product_id, 'name', name, 'quantity', quantity,
                 'unit_price', unit_price, 'amount', amount) ORDER BY line)
             FROM order_lines WHERE order_id = orders.id
         ) AS lines
         FROM orders WHERE id = ?1 AND created_at_ms IS NOT NULL",
        params![&id],
    )?;
    order.ok_or_else(|| Rejection::new("not-found", format!("There is no order with the id {id}.")).into())
}
