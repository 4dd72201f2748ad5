//! The list of all products.

use kontor_sdk::{db, prelude::*};

use crate::product::{Product, ProductEvent, ProductView};

use ProductEvent::*;

pub(crate) fn products() -> ReadModel {
    ReadModel::new(1, include_str!("read_model.sql")).follow(Product::NAME, project)
}

fn project(event: &RecordedEvent, change: ProductEvent) -> Result<(), SqlError> {
    let id = &event.aggregate_id;
    match change {
        ProductRegistered { name, unit_price, quantity } => db::execute(
            "INSERT INTO products VALUES (?1, ?2, ?3, ?4, 0, 0)",
            params![id, name, unit_price, quantity],
        ),
        StockAdded { quantity } => {
            db::execute("UPDATE products SET available = available + ?2 WHERE id = ?1", params![id, quantity])
        }
        StockRemoved { quantity } => {
            db::execute("UPDATE products SET available = available - ?2 WHERE id = ?1", params![id, quantity])
        }
        StockReserved { quantity, .. } => reserve_more(id, 0, quantity),
        ReservationChanged { from, to, .. } => reserve_more(id, from, to),
        StockReleased { quantity, .. } => reserve_more(id, quantity, 0),
        StockShipped { quantity, .. } => ship_more(id, 0, quantity),
        StockUnshipped { quantity, .. } => ship_more(id, quantity, 0),
    }?;
    Ok(())
}

/// Moves stock from available to reserved, or back if `to` is less than `from`.
fn reserve_more(id: &str, from: u64, to: u64) -> Result<u64, SqlError> {
    db::execute(
        "UPDATE products SET available = available - (?3 - ?2), reserved = reserved + (?3 - ?2) WHERE id = ?1",
        params![id, from, to],
    )
}

/// Moves stock from reserved to shipped, or back if `to` is less than `from`.
fn ship_more(id: &str, from: u64, to: u64) -> Result<u64, SqlError> {
    db::execute(
        "UPDATE products SET reserved = reserved - (?3 - ?2), shipped = shipped + (?3 - ?2) WHERE id = ?1",
        params![id, from, to],
    )
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// The `next` of the page before.
    #[serde(default)]
    after: String,
    #[serde(default = "Page::limit")]
    #[schemars(range(min = 1, max = 200))]
    limit: u32,
}

impl Page {
    fn limit() -> u32 {
        50
    }
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Products {
    items: Vec<ProductView>,
    /// The `after` of the next page; null on the last one.
    next: Option<String>,
}

pub(crate) fn list(page: Page) -> Result<Products, Failure> {
    let mut items: Vec<ProductView> = db::query(
        "SELECT * FROM products WHERE id > ?1 ORDER BY id LIMIT ?2",
        params![page.after, page.limit + 1],
    )?;
    let more = items.len() > page.limit as usize;
    items.truncate(page.limit as usize);
    let next = items.last().filter(|_| more).map(|product| product.id.clone());
    Ok(Products { items, next })
}
