//! Which sagas are open: a small database beside the log, rebuilt from it when it is lost.
//!
//! A trigger's row and the position up to which the log has been looked at are written in one transaction, so an event
//! starts its sagas exactly once, whatever happens in between: a saga's id follows from its trigger, and its journal from
//! its id.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::SagaId;
use super::journal::SagaState;
use crate::model::Position;

/// Events that concern no saga after which the position is written all the same: as many are looked at again after a
/// restart, which takes some ten milliseconds.
const WRITE_EVERY: Position = 10_000;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS sagas (
    id TEXT PRIMARY KEY,
    trigger INTEGER NOT NULL,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sagas_by_state ON sagas (state, id);
CREATE TABLE IF NOT EXISTS position (position INTEGER NOT NULL);
INSERT INTO position SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM position);
";

/// A saga that has not ended, and the position of the event that started it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Open {
    pub(super) id: SagaId,
    pub(super) trigger: Position,
    pub(super) service: Arc<str>,
    pub(super) name: Arc<str>,
}

/// What an event of the log means for the index.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Triggered(Open),
    Moved { id: SagaId, state: SagaState },
}

#[derive(Clone)]
pub(super) struct Index {
    connection: Arc<Mutex<Connection>>,
    /// The position that the database says, or an earlier one.
    written: Arc<AtomicU64>,
}

impl Index {
    pub(super) fn open(dir: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(dir.join("sagas.db"))?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), written: Arc::default() })
    }

    /// The position up to which the log has been looked at.
    pub(super) async fn position(&self) -> rusqlite::Result<Position> {
        self.with(|connection| connection.query_row("SELECT position FROM position", [], |row| row.get(0)))
            .await
    }

    /// The sagas to be run, oldest first: neither ended nor parked.
    pub(super) async fn open_sagas(&self) -> rusqlite::Result<Vec<Open>> {
        self.with(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, trigger, service, name FROM sagas WHERE state IN ('running', 'unwinding') ORDER BY id",
            )?;
            let open = |row: &rusqlite::Row<'_>| {
                Ok(Open { id: row.get(0)?, trigger: row.get(1)?, service: row.get(2)?, name: row.get(3)? })
            };
            statement.query_map([], open)?.collect()
        })
        .await
    }

    /// Takes in what the log says up to a position. If that is nothing, the position is seldom worth a transaction.
    pub(super) async fn apply(&self, changes: Vec<Change>, position: Position) -> rusqlite::Result<()> {
        if changes.is_empty() && position.saturating_sub(self.written.load(Ordering::Relaxed)) < WRITE_EVERY {
            return Ok(());
        }
        self.write(changes, position).await
    }

    /// Like [`Index::apply`], and the position is written in any case.
    pub(super) async fn write(&self, changes: Vec<Change>, position: Position) -> rusqlite::Result<()> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            for change in changes {
                match change {
                    Change::Triggered(saga) => transaction
                        .prepare_cached(
                            "INSERT INTO sagas (id, trigger, service, name, state) VALUES (?1, ?2, ?3, ?4, 'running')
                             ON CONFLICT DO NOTHING",
                        )?
                        .execute(params![saga.id, saga.trigger, saga.service, saga.name])?,
                    Change::Moved { id, state } => transaction
                        .prepare_cached("UPDATE sagas SET state = ?2 WHERE id = ?1")?
                        .execute(params![id, state.as_str()])?,
                };
            }
            transaction.prepare_cached("UPDATE position SET position = ?1")?.execute([position])?;
            transaction.commit()
        })
        .await?;
        self.written.store(position, Ordering::Relaxed);
        Ok(())
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let connection = self.connection.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        // The task is only ever cancelled together with the runtime; a panic is passed on.
        match done.await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trigger_seen_twice_is_one_saga_and_an_ended_one_is_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        let saga = |id: &str, trigger| Open {
            id: id.into(),
            trigger,
            service: "order".into(),
            name: "place-order".into(),
        };
        let triggered = vec![Change::Triggered(saga("a", 3)), Change::Triggered(saga("b", 4))];
        index.apply(triggered.clone(), 5).await.unwrap();
        index.apply(vec![Change::Moved { id: "a".into(), state: SagaState::Completed }], 6).await.unwrap();
        drop(index);

        let index = Index::open(dir.path()).unwrap();
        index.apply(triggered, 7).await.unwrap();
        assert_eq!(index.open_sagas().await.unwrap(), [saga("b", 4)]);
        assert_eq!(index.position().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_position_alone_is_written_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        for (position, written) in [(9_999, 0), (10_000, 10_000), (19_999, 10_000), (20_000, 20_000)] {
            index.apply(Vec::new(), position).await.unwrap();
            assert_eq!(index.position().await.unwrap(), written, "after {position}");
        }
    }
}
