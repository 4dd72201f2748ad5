//! The baseline of the report component: the same SQL, called by Rust in the same process.
//!
//! The events of a page are read into types and change orders in memory, which are then written with the
//! statements of `plugins/report/src`, all in a transaction, on a connection with the settings of the host's
//! read databases. It leaves out the work that a host is for: WebAssembly, the authorizer, time limits and
//! the position.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;
use kontor::model::Recorded;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::read_database;

const SCHEMA: &str = include_str!("../../../plugins/report/src/read_model.sql");

const KNOWN: &str = "SELECT * FROM orders WHERE id IN (SELECT value FROM json_each(?1))";
const LAST: &str = "SELECT max(number) AS number FROM orders";
const SAVE: &str = "REPLACE INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
const UNLIST: &str =
    "DELETE FROM orders_by_product WHERE product_id = ?1 AND created_at_ms = ?2 AND number = ?3";
const LIST: &str = "REPLACE INTO orders_by_product VALUES (?1, ?2, ?3, ?4)";
const PRODUCT: &str = "INSERT OR IGNORE INTO products VALUES (?1, ?2)";
const SOLD: &str = "INSERT INTO sales_by_product VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (product_id, day) DO UPDATE SET
        orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
        amount = amount + excluded.amount";
const SOLD_ON: &str = "INSERT INTO sales_by_day VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (day) DO UPDATE SET
        orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
        amount = amount + excluded.amount";

/// The compared figures of each table: its number of rows, and sums.
const FINGERPRINTS: [&str; 4] = [
    "SELECT count(*), sum(total + length(lines)),
            sum(length(status) + length(payment_status) + length(delivery_status))
     FROM orders",
    "SELECT count(*), sum(number), sum(length(product_id) + length(status)) FROM orders_by_product",
    "SELECT sum(orders), sum(quantity), sum(amount) FROM sales_by_product",
    "SELECT sum(orders), sum(quantity), sum(amount) FROM sales_by_day",
];

const DAY_MS: u64 = 86_400_000;

pub(super) struct Native(Connection);

/// A row of `orders`. Its JSON columns stay text, except the lines.
#[derive(Clone, Default)]
struct Order {
    number: i64,
    id: String,
    user_id: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    lines: Vec<Line>,
    total: Option<u64>,
    address: Option<String>,
    payment_status: Option<String>,
    payment: Option<String>,
    delivery_status: Option<String>,
    created_at_ms: Option<u64>,
    updated_at_ms: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    product_id: String,
    name: String,
    quantity: u64,
    unit_price: u64,
    amount: u64,
}

#[derive(Deserialize)]
struct Created<'a> {
    user_id: String,
    lines: Vec<Line>,
    total: u64,
    #[serde(borrow)]
    address: &'a RawValue,
}

#[derive(Deserialize)]
struct Updated {
    lines: Vec<Line>,
    total: u64,
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
        Ok(Self(read_database::open(file, SCHEMA)?))
    }

    /// Applies events in one transaction, in chunks as large as those that the component gets in a call.
    pub(super) fn project(&mut self, events: &[Recorded]) -> anyhow::Result<()> {
        let transaction = self.0.transaction()?;
        for events in events.chunks(1_000) {
            let mut orders = Orders::read(&transaction, events)?;
            for event in events {
                orders.of(event).apply(event)?;
            }
            orders.write(&transaction)?;
        }
        Ok(transaction.commit()?)
    }
}

/// Returns the figures of a read database; two databases with the same figures hold the same rows.
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

impl Order {
    fn read(row: &Row<'_>) -> anyhow::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            id: row.get(1)?,
            user_id: row.get(2)?,
            status: row.get(3)?,
            reason: row.get(4)?,
            lines: serde_json::from_str(row.get_ref(5)?.as_str()?)?,
            total: row.get(6)?,
            address: row.get(7)?,
            payment_status: row.get(8)?,
            payment: row.get(9)?,
            delivery_status: row.get(10)?,
            created_at_ms: row.get(11)?,
            updated_at_ms: row.get(12)?,
        })
    }

    fn apply(&mut self, event: &Recorded) -> anyhow::Result<()> {
        self.updated_at_ms = self.updated_at_ms.max(event.meta.time_ms);
        match (event.stream.aggregate(), event.name.as_str()) {
            ("order", "order-created") => {
                let Created { user_id, lines, total, address } = event.payload.read()?;
                self.status = Some("pending".to_owned());
                self.created_at_ms = Some(event.meta.time_ms);
                (self.user_id, self.address) = (Some(user_id), Some(address.get().to_owned()));
                (self.lines, self.total) = (lines, Some(total));
            }
            ("order", "order-updated") => {
                let Updated { lines, total } = event.payload.read()?;
                (self.status, self.reason) = (Some("confirmed".to_owned()), None);
                (self.lines, self.total) = (lines, Some(total));
            }
            ("order", name) => {
                let status = match name {
                    "order-confirmed" => "confirmed",
                    "order-deleted" => "deleted",
                    "order-cancelled" => "cancelled",
                    "order-update-requested" => "updating",
                    "order-delete-requested" => "deleting",
                    other => bail!("the bench makes no event {other}"),
                };
                let Reason { reason } = event.payload.read()?;
                (self.status, self.reason) =
                    (Some(status.to_owned()), reason.map(|reason| reason.get().to_owned()));
            }
            ("payment", name) => {
                let status = if name == "payment-cancelled" { "cancelled" } else { "authorized" };
                let Payment { methods } = event.payload.read()?;
                self.payment_status = Some(status.to_owned());
                self.payment = methods.map(|methods| methods.get().to_owned()).or(self.payment.take());
            }
            (_, name) => {
                let status = match name {
                    "delivery-held" => "held",
                    "delivery-cancelled" => "cancelled",
                    _ => "preparing",
                };
                self.delivery_status = Some(status.to_owned());
            }
        }
        Ok(())
    }

    fn products(&self) -> BTreeMap<&str, (u64, &str)> {
        let placed = self.created_at_ms.zip(self.status.as_deref());
        let products = placed
            .into_iter()
            .flat_map(|placed| self.lines.iter().map(move |line| (line.product_id.as_str(), placed)));
        products.collect()
    }

    fn save(&self, database: &Connection) -> anyhow::Result<()> {
        run(
            database,
            SAVE,
            params![
                self.number,
                self.id,
                self.user_id,
                self.status,
                self.reason,
                serde_json::to_string(&self.lines)?,
                self.total,
                self.address,
                self.payment_status,
                self.payment,
                self.delivery_status,
                self.created_at_ms,
                self.updated_at_ms,
            ],
        )
    }

    fn list(&self, database: &Connection, listed: &BTreeMap<&str, (u64, &str)>) -> anyhow::Result<()> {
        let products = self.products();
        for (product, (created_at_ms, _)) in listed {
            if !products.contains_key(product) {
                run(database, UNLIST, params![product, created_at_ms, self.number])?;
            }
        }
        for (product, placed) in &products {
            if listed.get(product) != Some(placed) {
                run(database, LIST, params![product, placed.0, self.number, placed.1])?;
            }
        }
        Ok(())
    }
}

/// The orders of a page: by id, the order before the page and after it.
struct Orders {
    changes: BTreeMap<String, (Option<Order>, Order)>,
    number: i64,
}

impl Orders {
    fn read(database: &Connection, events: &[Recorded]) -> anyhow::Result<Self> {
        let ids: BTreeSet<_> = events.iter().map(|event| event.stream.id()).collect();
        let mut changes = BTreeMap::new();
        let mut statement = database.prepare_cached(KNOWN)?;
        let mut rows = statement.query([serde_json::to_string(&ids)?])?;
        while let Some(row) = rows.next()? {
            let order = Order::read(row)?;
            changes.insert(order.id.clone(), (Some(order.clone()), order));
        }
        let last: Option<i64> = database.prepare_cached(LAST)?.query_row([], |row| row.get(0))?;
        Ok(Self { changes, number: last.unwrap_or(0) })
    }

    fn of(&mut self, event: &Recorded) -> &mut Order {
        let id = event.stream.id();
        let (_, order) = self.changes.entry(id.to_owned()).or_insert_with(|| {
            self.number += 1;
            (None, Order { number: self.number, id: id.to_owned(), ..Order::default() })
        });
        order
    }

    fn write(&self, database: &Connection) -> anyhow::Result<()> {
        let mut totals = Totals::default();
        for (before, after) in self.changes.values() {
            after.save(database)?;
            let listed = before.as_ref().map(Order::products).unwrap_or_default();
            after.list(database, &listed)?;
            before.iter().for_each(|order| totals.add(order, -1));
            totals.add(after, 1);
        }
        totals.write(database)
    }
}

/// The numbers of orders and of pieces, and the amount.
type Total = [i64; 3];

#[derive(Default)]
struct Totals<'a> {
    by_product: BTreeMap<(&'a str, u64), Total>,
    by_day: BTreeMap<u64, Total>,
    names: BTreeMap<&'a str, &'a str>,
}

impl<'a> Totals<'a> {
    fn add(&mut self, order: &'a Order, sign: i64) {
        let stands = matches!(order.status.as_deref(), Some("confirmed" | "updating" | "deleting"));
        let Some(time_ms) = order.created_at_ms.filter(|_| stands) else { return };
        let day = time_ms / DAY_MS;
        let of_day = self.by_day.entry(day).or_default();
        add(of_day, [sign, 0, 0]);
        for line in &order.lines {
            let [quantity, amount] = [line.quantity, line.amount].map(|number| sign * number.cast_signed());
            add(of_day, [0, quantity, amount]);
            add(self.by_product.entry((&line.product_id, day)).or_default(), [sign, quantity, amount]);
            self.names.insert(&line.product_id, &line.name);
        }
    }

    fn write(&self, database: &Connection) -> anyhow::Result<()> {
        for (product, name) in &self.names {
            run(database, PRODUCT, params![product, name])?;
        }
        for ((product, day), total) in self.by_product.iter().filter(|(_, total)| **total != [0; 3]) {
            run(database, SOLD, params![product, date(*day), total[0], total[1], total[2]])?;
        }
        for (day, total) in self.by_day.iter().filter(|(_, total)| **total != [0; 3]) {
            run(database, SOLD_ON, params![date(*day), total[0], total[1], total[2]])?;
        }
        Ok(())
    }
}

fn add(total: &mut Total, more: Total) {
    total.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// Returns the date of a day, as `plugins/report/src/totals.rs` writes it.
fn date(day: u64) -> String {
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{:04}-{month:02}-{day:02}", 400 * era + year)
}

fn run(database: &Connection, sql: &str, parameters: &[&dyn rusqlite::ToSql]) -> anyhow::Result<()> {
    database.prepare_cached(sql)?.execute(parameters)?;
    Ok(())
}
