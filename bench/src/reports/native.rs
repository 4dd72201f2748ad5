//! What the report component is compared with: the same SQL, called by Rust in the same process.
//!
//! The events are read into types and written with the statements of `plugins/report/src/read_model.rs`, a page in a
//! transaction, on a connection with the settings of the host's read databases. What is left out is what the host is for:
//! WebAssembly, the authorizer, time limits and the position.

use std::path::Path;

use anyhow::bail;
use kontor::model::Recorded;
use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::value::RawValue;

const SCHEMA: &str = include_str!("../../../plugins/report/src/read_model.sql");

const CREATED: &str = "INSERT INTO orders (id, user_id, status, total, address, created_at_ms, updated_at_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
    ON CONFLICT (id) DO UPDATE SET
        user_id = excluded.user_id, status = excluded.status, total = excluded.total,
        address = excluded.address, created_at_ms = excluded.created_at_ms,
        updated_at_ms = max(updated_at_ms, excluded.updated_at_ms)";
const LINE: &str = "INSERT INTO order_lines SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, status, created_at_ms
    FROM orders WHERE id = ?1";
const STATUS: &str =
    "UPDATE orders SET status = ?2, reason = ?3, updated_at_ms = max(updated_at_ms, ?4) WHERE id = ?1";
const LINES_STATUS: &str = "UPDATE order_lines SET status = ?2 WHERE order_id = ?1";
const TOTAL: &str = "UPDATE orders SET total = ?2 WHERE id = ?1";
const NO_LINES: &str = "DELETE FROM order_lines WHERE order_id = ?1";
const PRODUCTS: &str =
    "INSERT OR IGNORE INTO products SELECT product_id, name FROM order_lines WHERE order_id = ?1";
const BY_PRODUCT: &str = "INSERT INTO sales_by_product
    SELECT product_id, date(created_at_ms / 1000, 'unixepoch'), ?2, ?2 * quantity, ?2 * amount
    FROM order_lines WHERE order_id = ?1
    ON CONFLICT (product_id, day) DO UPDATE SET
        orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
        amount = amount + excluded.amount";
const BY_DAY: &str = "INSERT INTO sales_by_day
    SELECT date(created_at_ms / 1000, 'unixepoch'), ?2, ?2 * sum(quantity), ?2 * sum(amount)
    FROM order_lines WHERE order_id = ?1 GROUP BY order_id
    ON CONFLICT (day) DO UPDATE SET
        orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
        amount = amount + excluded.amount";
const PAYMENT: &str =
    "INSERT INTO orders (id, payment_status, payment, updated_at_ms) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (id) DO UPDATE SET
        payment_status = excluded.payment_status, payment = coalesce(excluded.payment, payment),
        updated_at_ms = max(updated_at_ms, excluded.updated_at_ms)";
const DELIVERY: &str = "INSERT INTO orders (id, delivery_status, updated_at_ms) VALUES (?1, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET
        delivery_status = excluded.delivery_status,
        updated_at_ms = max(updated_at_ms, excluded.updated_at_ms)";

/// The tables, with what is compared of each: how much is in it, and sums.
const FINGERPRINTS: [&str; 4] = [
    "SELECT count(*), sum(total), sum(length(status) + length(payment_status) + length(delivery_status)) FROM orders",
    "SELECT count(*), sum(amount), sum(length(product_id) + length(status)) FROM order_lines",
    "SELECT sum(orders), sum(quantity), sum(amount) FROM sales_by_product",
    "SELECT sum(orders), sum(quantity), sum(amount) FROM sales_by_day",
];

pub(super) struct Native(Connection);

#[derive(Deserialize)]
struct Created<'a> {
    user_id: &'a str,
    #[serde(borrow)]
    lines: Vec<Line<'a>>,
    total: u64,
    #[serde(borrow)]
    address: &'a RawValue,
}

#[derive(Deserialize)]
struct Updated<'a> {
    #[serde(borrow)]
    lines: Vec<Line<'a>>,
    total: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    product_id: &'a str,
    name: &'a str,
    quantity: u64,
    unit_price: u64,
    amount: u64,
}

#[derive(Deserialize)]
struct Reason<'a> {
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Payment<'a> {
    #[serde(borrow)]
    methods: Option<&'a RawValue>,
}

impl Native {
    pub(super) fn open(file: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "cache_size", -32_768)?;
        connection.pragma_update(None, "wal_autocheckpoint", 8_192)?;
        // As in the host.
        connection.set_prepared_statement_cache_capacity(64);
        connection.execute_batch(SCHEMA)?;
        Ok(Self(connection))
    }

    /// Applies events in one transaction.
    pub(super) fn project(&mut self, events: &[Recorded]) -> anyhow::Result<()> {
        let transaction = self.0.transaction()?;
        for event in events {
            match event.stream.aggregate() {
                "order" => order(&transaction, event)?,
                "payment" => payment(&transaction, event)?,
                _ => delivery(&transaction, event)?,
            }
        }
        Ok(transaction.commit()?)
    }
}

/// What tells two read databases apart.
pub(super) fn fingerprint(file: &Path) -> anyhow::Result<Vec<[i64; 3]>> {
    let connection = Connection::open(file)?;
    let read = |sql: &str| {
        connection.query_row(sql, [], |row| {
            let number = |index| row.get::<_, Option<i64>>(index).map(Option::unwrap_or_default);
            Ok([number(0)?, number(1)?, number(2)?])
        })
    };
    Ok(FINGERPRINTS.iter().map(|sql| read(sql)).collect::<Result<_, _>>()?)
}

fn order(database: &Connection, event: &Recorded) -> anyhow::Result<()> {
    let id = event.stream.id();
    match &*event.name {
        "order-created" => {
            let Created { user_id, lines, total, address } = event.payload.read()?;
            let time = event.meta.time_ms;
            run(database, CREATED, params![id, user_id, "pending", total, address.get(), time])?;
            add_lines(database, id, &lines)
        }
        "order-updated" => {
            let Updated { lines, total } = event.payload.read()?;
            count(database, id, -1)?;
            set_status(database, event, "confirmed")?;
            run(database, TOTAL, params![id, total])?;
            run(database, NO_LINES, params![id])?;
            add_lines(database, id, &lines)?;
            count(database, id, 1)
        }
        "order-confirmed" => {
            set_status(database, event, "confirmed")?;
            count(database, id, 1)
        }
        "order-deleted" => {
            count(database, id, -1)?;
            set_status(database, event, "deleted")
        }
        "order-cancelled" => set_status(database, event, "cancelled"),
        "order-update-requested" => set_status(database, event, "updating"),
        "order-delete-requested" => set_status(database, event, "deleting"),
        other => bail!("the bench makes no event {other}"),
    }
}

fn add_lines(database: &Connection, id: &str, lines: &[Line<'_>]) -> anyhow::Result<()> {
    for (number, line) in (1_u64..).zip(lines) {
        let Line { product_id, name, quantity, unit_price, amount } = line;
        run(database, LINE, params![id, number, product_id, name, quantity, unit_price, amount])?;
    }
    Ok(())
}

fn set_status(database: &Connection, event: &Recorded, status: &str) -> anyhow::Result<()> {
    let id = event.stream.id();
    let Reason { reason } = event.payload.read()?;
    run(database, STATUS, params![id, status, reason.map(RawValue::get), event.meta.time_ms])?;
    run(database, LINES_STATUS, params![id, status])
}

fn count(database: &Connection, id: &str, sign: i64) -> anyhow::Result<()> {
    run(database, PRODUCTS, params![id])?;
    run(database, BY_PRODUCT, params![id, sign])?;
    run(database, BY_DAY, params![id, sign])
}

fn payment(database: &Connection, event: &Recorded) -> anyhow::Result<()> {
    let status = if &*event.name == "payment-cancelled" { "cancelled" } else { "authorized" };
    let Payment { methods } = event.payload.read()?;
    let parameters = params![event.stream.id(), status, methods.map(RawValue::get), event.meta.time_ms];
    run(database, PAYMENT, parameters)
}

fn delivery(database: &Connection, event: &Recorded) -> anyhow::Result<()> {
    let status = match &*event.name {
        "delivery-held" => "held",
        "delivery-cancelled" => "cancelled",
        _ => "preparing",
    };
    run(database, DELIVERY, params![event.stream.id(), status, event.meta.time_ms])
}

fn run(database: &Connection, sql: &str, parameters: &[&dyn rusqlite::ToSql]) -> anyhow::Result<()> {
    database.prepare_cached(sql)?.execute(parameters)?;
    Ok(())
}
