//! The read model of the baseline: the list of all products, with the statements of the inventory component.
//! It follows the log at the pace of the host's read models, and keeps its position in each transaction.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use kontor::log::{EmbeddedLog, Subscription};
use kontor::model::{Position, Recorded};
use rusqlite::{Connection, params};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep_until};

use super::{AddStock, Register};
use crate::read_database;

const SCHEMA: &str = concat!(
    include_str!("../../../plugins/inventory/src/read_model.sql"),
    "CREATE TABLE position (position INTEGER NOT NULL); INSERT INTO position VALUES (0);"
);
const REGISTER: &str = "INSERT INTO products VALUES (?1, ?2, ?3, ?4, 0, 0)";
const ADD: &str = "UPDATE products SET available = available + ?2 WHERE id = ?1";
const MOVE: &str = "UPDATE position SET position = ?1";

/// The time between two transactions, as in the host.
const LINGER: Duration = Duration::from_millis(10);

pub(super) struct ReadModel(Connection);

impl ReadModel {
    /// Creates the database in a directory.
    pub(super) fn create(data: &Path) -> anyhow::Result<Self> {
        Ok(Self(read_database::open(&data.join("products.db"), SCHEMA)?))
    }

    /// Applies the events of a log as they come.
    pub(super) async fn follow(mut self, log: Arc<EmbeddedLog>) -> anyhow::Result<()> {
        let mut events = Subscription::in_batches(log, Position::START);
        let mut due = Instant::now();
        loop {
            sleep_until(due).await;
            let Some(batch) = events.next().await? else { bail!("the log is closed") };
            block_in_place(|| self.apply(&batch))?;
            due = Instant::now() + LINGER;
        }
    }

    fn apply(&mut self, batch: &[Recorded]) -> anyhow::Result<()> {
        let transaction = self.0.transaction()?;
        for event in batch {
            let id = event.stream.id();
            match event.name.as_str() {
                "product-registered" => {
                    let Register { name, unit_price, quantity } = event.payload.read()?;
                    transaction.prepare_cached(REGISTER)?.execute(params![id, name, unit_price, quantity])?
                }
                _ => {
                    let AddStock { quantity } = event.payload.read()?;
                    transaction.prepare_cached(ADD)?.execute(params![id, quantity])?
                }
            };
        }
        if let Some(last) = batch.last() {
            transaction.prepare_cached(MOVE)?.execute([last.position.get()])?;
        }
        Ok(transaction.commit()?)
    }
}
