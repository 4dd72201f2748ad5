//! One order in the read model.

use std::collections::BTreeMap;

use kontor_sdk::{db, prelude::*};

/// A row of `orders`. The members of the order itself are set from `order-created` on.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: i64,
    pub(crate) id: String,
    pub(crate) user_id: Option<String>,
    pub(crate) status: Option<Status>,
    reason: Option<Rejection>,
    pub(crate) lines: Vec<Line>,
    pub(crate) total: Option<u64>,
    pub(crate) address: Option<Address>,
    pub(crate) payment_status: Option<String>,
    pub(crate) payment: Option<Vec<Part>>,
    pub(crate) delivery_status: Option<String>,
    pub(crate) created_at_ms: Option<u64>,
    pub(crate) updated_at_ms: u64,
}

/// When an order was placed, and its status.
pub(crate) type Placed = (u64, Status);

impl Order {
    /// Makes an order of which only the id is known.
    pub(crate) fn new(number: i64, id: String) -> Self {
        Self { number, id, ..Self::default() }
    }

    pub(crate) fn becomes(&mut self, status: Status, reason: Option<Rejection>) {
        (self.status, self.reason) = (Some(status), reason);
    }

    /// Returns the products of the order, each with the columns of their index; none before the order was
    /// placed.
    pub(crate) fn products(&self) -> BTreeMap<&str, Placed> {
        let placed = self.created_at_ms.zip(self.status);
        let products = placed
            .into_iter()
            .flat_map(|placed| self.lines.iter().map(move |line| (line.product_id.as_str(), placed)));
        products.collect()
    }

    /// Writes the order, in place of its old row.
    pub(crate) fn save(&self) -> Result<(), SqlError> {
        db::execute(
            "REPLACE INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                self.number,
                &self.id,
                self.user_id.as_ref(),
                self.status,
                self.reason.as_ref().map(db::json),
                db::json(&self.lines),
                self.total,
                self.address.as_ref().map(db::json),
                self.payment_status.as_ref(),
                self.payment.as_ref().map(db::json),
                self.delivery_status.as_ref(),
                self.created_at_ms,
                self.updated_at_ms,
            ],
        )?;
        Ok(())
    }
}

/// A product in an order. Amounts are in the smallest unit of the currency.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Line {
    pub(crate) product_id: String,
    pub(crate) name: String,
    pub(crate) quantity: u64,
    unit_price: u64,
    pub(crate) amount: u64,
}

/// The part of the total that is paid in one way, in the smallest unit of the currency.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Part {
    method: String,
    amount: u64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
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
