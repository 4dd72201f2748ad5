//! The orders that a batch of events changes.

use std::collections::{BTreeMap, BTreeSet};

use kontor_sdk::{db, prelude::*};

use crate::row::{Order, Placed};
use crate::totals::Totals;

pub(crate) struct Orders {
    /// The orders, by their ids.
    changes: BTreeMap<String, Change>,
    /// The number of the newest order.
    number: i64,
}

struct Change {
    /// The order in the read model, or `None` if it is not there.
    before: Option<Order>,
    after: Order,
}

#[derive(Deserialize)]
struct Last {
    number: Option<i64>,
}

impl Batch for Orders {
    fn read(events: &[RecordedEvent]) -> Result<Self, SqlError> {
        let ids: BTreeSet<_> = events.iter().map(|event| &event.aggregate_id).collect();
        let orders: Vec<Order> = db::query(
            "SELECT * FROM orders WHERE id IN (SELECT value FROM json_each(?1))",
            params![db::json(&ids)],
        )?;
        let change = |order: Order| (order.id.clone(), Change { before: Some(order.clone()), after: order });
        let last: Option<Last> = db::query_one("SELECT max(number) AS number FROM orders", params![])?;
        Ok(Self {
            changes: orders.into_iter().map(change).collect(),
            number: last.and_then(|last| last.number).unwrap_or(0),
        })
    }

    fn write(self) -> Result<(), SqlError> {
        let mut totals = Totals::default();
        for Change { before, after } in self.changes.values() {
            after.save()?;
            let listed = before.as_ref().map(Order::products).unwrap_or_default();
            list(after, &listed)?;
            before.iter().try_for_each(|order| totals.add(order, -1))?;
            totals.add(after, 1)?;
        }
        totals.write()
    }
}

impl Orders {
    /// Returns the order that an event belongs to.
    pub(crate) fn of(&mut self, event: &RecordedEvent) -> &mut Order {
        let change = self.changes.entry(event.aggregate_id.clone()).or_insert_with(|| {
            self.number += 1;
            Change { before: None, after: Order::new(self.number, event.aggregate_id.clone()) }
        });
        let order = &mut change.after;
        order.updated_at_ms = order.updated_at_ms.max(event.time_ms);
        order
    }
}

/// Lists an order under its products, and no longer under others that it is `listed` under.
fn list(order: &Order, listed: &BTreeMap<&str, Placed>) -> Result<(), SqlError> {
    let products = order.products();
    for (product, (created_at_ms, _)) in listed.iter().filter(|(product, _)| !products.contains_key(*product))
    {
        db::execute(
            "DELETE FROM orders_by_product WHERE product_id = ?1 AND created_at_ms = ?2 AND number = ?3",
            params![*product, *created_at_ms, order.number],
        )?;
    }
    for (product, placed) in products.iter().filter(|(product, placed)| listed.get(*product) != Some(placed))
    {
        let (created_at_ms, status) = *placed;
        db::execute(
            "REPLACE INTO orders_by_product VALUES (?1, ?2, ?3, ?4)",
            params![*product, created_at_ms, order.number, status],
        )?;
    }
    Ok(())
}
