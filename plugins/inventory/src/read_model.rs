//! The list of all products.

use kontor_sdk::{db, prelude::*};

use crate::product::{Product, ProductEvent, ProductView};

pub(crate) fn products() -> ReadModel {
    ReadModel::new(1, include_str!("read_model.sql")).follow(Product::NAME, project)
}

fn project(event: &RecordedEvent, change: ProductEvent) -> Result<(), SqlError> {
    let id = &event.aggregate_id;
    match change {
        ProductEvent::ProductRegistered { name, unit_price, quantity } => db::execute(
            "INSERT INTO products VALUES (?1, ?2, ?3, ?4, 0, 0)",
            params![id, name, unit_price, quantity],
        ),
        ProductEvent::StockAdded { quantity } => {
            db::execute("UPDATE products SET available = available + ?2 WHERE id = ?1", params![id, quantity])
        }
        ProductEvent::StockRemoved { quantity } => {
            db::execute("UPDATE products SET available = available - ?2 WHERE id = ?1", params![id, quantity])
        }
        ProductEvent::StockReserved { quantity, .. } => reserve_more(id, 0, quantity),
        ProductEvent::ReservationChanged { from, to, .. } => reserve_more(id, from, to),
        ProductEvent::StockReleased { quantity, .. } => reserve_more(id, quantity, 0),
        ProductEvent::StockShipped { quantity, .. } => ship_more(id, 0, quantity),
        ProductEvent::StockUnshipped { quantity, .. } => ship_more(id, quantity, 0),
    }?;
    Ok(())
}

/// Moves stock from available to reserved, or back if `to` is less than `from`.
fn reserve_more(id: &str, from: u64, to: u64) -> Result<u64, SqlError> {
    db::execute(
        "UPDATE products SET available = available - (?3 - ?2), reserved = reserved + (?3 - ?2)
         WHERE id = ?1",
        params![id, from, to],
    )
}

/// Moves stock from reserved to shipped, or back if `to` is less than `from`.
fn ship_more(id: &str, from: u64, to: u64) -> Result<u64, SqlError> {
    db::execute(
        "UPDATE products SET reserved = reserved - (?3 - ?2), shipped = shipped + (?3 - ?2)
         WHERE id = ?1",
        params![id, from, to],
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Products {
    /// The `next` of the page before.
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: PageLimit,
}

impl Query for Products {
    const NAME: &str = "products";
    const DESCRIPTION: &str = "All products in the order of their ids.";
    type Answer = Page<ProductView>;

    fn answer(self) -> Result<Page<ProductView>, Error> {
        let rows = db::query(
            "SELECT * FROM products WHERE id > ?1 ORDER BY id LIMIT ?2",
            params![self.after, self.limit.rows()],
        )?;
        Ok(Page::new(rows, self.limit, |product: &ProductView| product.id.clone()))
    }
}
