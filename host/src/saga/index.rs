//! The index of sagas: a small database beside the log with the state of each saga, rebuilt from the log when
//! it is lost.
//!
//! A saga's row comes from its trigger, by the deployments before that in the log, and again from the first
//! entry of its journal. The row and the position up to which the log has been read are written in one
//! transaction, so an event starts its sagas exactly once, whatever happens in between: a saga's id follows
//! from its trigger, and its journal from its id.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::task::JoinError;

use super::change::Change;
use super::entry::Trigger;
use super::error::SagasError;
use super::journal::SagaState;
use crate::error::Chain;
use crate::garbage::{Collection, Garbage};
use crate::log::EventLog;
use crate::log::derived::{self, Rows};
#[cfg(test)]
use crate::model::Version;
use crate::model::{Digest, LogMark, NodeId, Position, SagaId, SagaName, ServiceName, StreamId};

/// The number of events without a saga after which the position is written all the same. A restart reads at
/// most this many again, which takes some ten milliseconds.
const WRITE_EVERY: u64 = 10_000;

/// The ended sagas with a lower id.
const ENDED_BELOW: Rows = Rows {
    table: "sagas",
    key: "id",
    condition: "state IN ('completed', 'compensated', 'resolved') AND id < ?1",
    size: "length(id) + length(stream) + length(service) + length(name) + length(digest)",
};

/// The version of the tables. Raise it when they change: the index is then built again.
const VERSION: u32 = 4;

const FILE: &str = "sagas.db";

const SCHEMA: &str = "
CREATE TABLE sagas (
    id TEXT PRIMARY KEY,
    -- The event that started it.
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    -- True if it has begun to unwind: a retry by an operator returns to this state.
    unwound INTEGER NOT NULL DEFAULT 0,
    -- The component that it runs on.
    digest TEXT NOT NULL,
    -- The host that runs it, where several share the log.
    runner TEXT,
    -- The reason why it is parked, or cannot run at all.
    why TEXT,
    -- The end of its sleep; set only while it sleeps.
    sleeps_until_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX sagas_by_state ON sagas (state, id);
-- The mark of the last event that is applied.
CREATE TABLE position (position INTEGER NOT NULL, hash BLOB NOT NULL);
INSERT INTO position VALUES (0, zeroblob(32));
";

/// A saga, and the event that started it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SagaHandle {
    pub(super) id: SagaId,
    pub(super) trigger: Trigger,
    pub(super) service: ServiceName,
    pub(super) name: SagaName,
    /// The component that it begins on. A saga that has begun may have moved to another one.
    pub(super) digest: Digest,
}

/// A saga that continues by itself: neither ended nor parked.
#[derive(Debug, PartialEq)]
pub(super) struct UnfinishedSaga {
    pub(super) handle: SagaHandle,
    /// The host that runs it, as its journal says.
    pub(super) runner: Option<NodeId>,
    /// The end of its sleep, in milliseconds since 1970-01-01 UTC. Set only while it sleeps.
    pub(super) sleeps_until_ms: Option<u64>,
}

/// A saga as a row of the index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) handle: SagaHandle,
    pub(super) state: SagaState,
    pub(super) why: Option<String>,
}

#[derive(Clone)]
pub(super) struct Index {
    connection: Arc<Mutex<Connection>>,
    /// The position in the database, or an earlier one.
    written: Arc<AtomicU64>,
}

impl Index {
    /// Opens the index of a log in a directory. Makes it anew if it is missing, damaged, or has events that
    /// are not in the log.
    pub(super) async fn open(dir: &Path, log: &dyn EventLog) -> Result<Self, SagasError> {
        let file = dir.join(FILE);
        match existing(&file) {
            Ok(Some((connection, mark))) if log.contains(mark).await? => {
                return Ok(Self::of(connection, mark));
            }
            Ok(Some((_, mark))) => tracing::warn!(
                position = mark.position.get(),
                "the index of sagas has events that are not in this log; rebuilding it from the log"
            ),
            Ok(None) => {}
            Err(error) if derived::is_damage(&error) => tracing::warn!(
                error = %Chain(&error),
                "the index of sagas is damaged; rebuilding it from the log"
            ),
            Err(error) => return Err(error.into()),
        }
        Ok(Self::of(create(&file)?, LogMark::START))
    }

    fn of(connection: Connection, mark: LogMark) -> Self {
        let written = Arc::new(AtomicU64::new(mark.position.get()));
        Self { connection: Arc::new(Mutex::new(connection)), written }
    }

    /// Returns the mark up to which the log has been read.
    pub(super) async fn mark(&self) -> rusqlite::Result<LogMark> {
        self.with(|connection| mark(connection)).await
    }

    /// Returns the sagas that are neither ended nor parked, oldest first.
    pub(super) async fn unfinished(&self) -> rusqlite::Result<Vec<UnfinishedSaga>> {
        self.with(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, stream, version, service, name, digest, runner, sleeps_until_ms FROM sagas
                 WHERE state IN ('running', 'unwinding', 'waiting') ORDER BY id",
            )?;
            statement.query_map([], UnfinishedSaga::read)?.collect()
        })
        .await
    }

    /// Returns the sagas of a service that have not ended.
    pub(super) async fn open_of(&self, service: &str) -> rusqlite::Result<Vec<SagaHandle>> {
        let service = service.to_owned();
        self.with(move |connection| {
            let mut statement = connection.prepare(
                "SELECT id, stream, version, service, name, digest FROM sagas
                 WHERE state IN ('running', 'waiting', 'unwinding', 'parked') AND service = ?1 ORDER BY id",
            )?;
            statement.query_map([service], SagaHandle::read)?.collect()
        })
        .await
    }

    pub(super) async fn find(&self, id: &SagaId) -> rusqlite::Result<Option<Listed>> {
        let id = id.clone();
        self.with(move |connection| {
            let sql =
                "SELECT id, stream, version, service, name, digest, state, why FROM sagas WHERE id = ?1";
            connection.query_row(sql, [id], Listed::read).optional()
        })
        .await
    }

    /// Returns up to `limit` sagas, the newest first: those of this state, with this name and older than
    /// `before`, as far as these are given.
    pub(super) async fn list(
        &self,
        state: Option<SagaState>,
        name: Option<String>,
        before: Option<String>,
        limit: usize,
    ) -> rusqlite::Result<Vec<Listed>> {
        self.with(move |connection| {
            // With an equation on the state, SQLite takes the index, and finds few parked ones among many.
            // All ids come before the tilde.
            let of_state = if state.is_some() { "state = ?1" } else { "?1 IS NULL" };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, stream, version, service, name, digest, state, why FROM sagas
                 WHERE {of_state} AND (?2 IS NULL OR name = ?2) AND id < coalesce(?3, '~')
                 ORDER BY id DESC LIMIT ?4",
            ))?;
            statement.query_map(params![state, name, before, limit], Listed::read)?.collect()
        })
        .await
    }

    /// Returns each state of sagas that have not ended, with their number and the id of the oldest.
    pub(super) async fn counts(&self) -> rusqlite::Result<Vec<(SagaState, u64, SagaId)>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT state, count(*), min(id) FROM sagas
                 WHERE state IN ('running', 'waiting', 'unwinding', 'parked') GROUP BY state",
            )?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .await
    }

    /// Returns the components of the sagas that have not ended.
    pub(super) async fn digests(&self) -> rusqlite::Result<HashSet<Digest>> {
        self.with(|connection| {
            let mut statement = connection.prepare(
                "SELECT DISTINCT digest FROM sagas
                 WHERE state IN ('running', 'waiting', 'unwinding', 'parked')",
            )?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
        .await
    }

    /// Collects the ended sagas with an id below this one. Their journals stay in the log.
    pub(super) async fn collect(&self, below: String, collection: Collection) -> rusqlite::Result<Garbage> {
        let mut garbage = Garbage::default();
        loop {
            // The index is free for others in between.
            let below = below.clone();
            let collect = move |connection: &mut _| ENDED_BELOW.collect(connection, &below, collection);
            let (some, has_more) = self.with(collect).await?;
            garbage += some;
            if !has_more {
                return Ok(garbage);
            }
        }
    }

    /// Applies the changes of the log up to a position. Without changes, the position alone is written only
    /// now and then.
    pub(super) async fn apply(&self, changes: Vec<Change>, mark: LogMark) -> rusqlite::Result<()> {
        if changes.is_empty() && mark.position.distance_from(self.written()) < WRITE_EVERY {
            return Ok(());
        }
        self.write(changes, mark).await
    }

    /// Applies changes like [`Index::apply`], and writes the position in any case. The position never goes
    /// back.
    pub(super) async fn write(&self, changes: Vec<Change>, mark: LogMark) -> rusqlite::Result<()> {
        let LogMark { position, hash } = mark;
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            let mut started = HashMap::new();
            for change in changes {
                // The trigger and the first entry of the journal often come together, and say the same.
                if let Change::Started { handle } = &change
                    && started.insert(handle.id.clone(), handle.digest) == Some(handle.digest)
                {
                    continue;
                }
                change.write(&transaction)?;
            }
            let advance = "UPDATE position SET position = ?1, hash = ?2 WHERE position < ?1";
            transaction.prepare_cached(advance)?.execute(params![position, hash])?;
            transaction.commit()
        })
        .await?;
        self.written.fetch_max(position.get(), Ordering::Relaxed);
        Ok(())
    }

    fn written(&self) -> Position {
        Position::new(self.written.load(Ordering::Relaxed))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let connection = self.connection.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await.map_err(JoinError::try_into_panic) {
            Ok(result) => result,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The task is only cancelled together with the runtime, and with it the caller.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

/// Opens an index, and returns the mark of its last event. Returns `None` if there is none of this version.
fn existing(file: &Path) -> rusqlite::Result<Option<(Connection, LogMark)>> {
    let Some(connection) = derived::existing(file, VERSION)? else { return Ok(None) };
    derived::check(&connection)?;
    let mark = mark(&connection)?;
    Ok(Some((connection, mark)))
}

/// Makes an empty index in the place of any other.
fn create(file: &Path) -> Result<Connection, SagasError> {
    derived::remove(file)?;
    let connection = derived::connect(file)?;
    connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    Ok(connection)
}

fn mark(connection: &Connection) -> rusqlite::Result<LogMark> {
    connection.query_row("SELECT position, hash FROM position", [], |row| {
        Ok(LogMark { position: row.get(0)?, hash: row.get(1)? })
    })
}

impl SagaHandle {
    /// Reads a row that begins with id, trigger, service and name.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let stream = StreamId::parse(row.get_ref(1)?.as_str()?).map_err(FromSqlError::other)?;
        let trigger = Trigger { stream, version: row.get(2)? };
        Ok(Self { id: row.get(0)?, trigger, service: row.get(3)?, name: row.get(4)?, digest: row.get(5)? })
    }
}

impl UnfinishedSaga {
    /// Reads a row that continues with runner and the end of its sleep.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { handle: SagaHandle::read(row)?, runner: row.get(6)?, sleeps_until_ms: row.get(7)? })
    }
}

impl Listed {
    /// Reads a row that continues with state and why.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { handle: SagaHandle::read(row)?, state: row.get(6)?, why: row.get(7)? })
    }
}

impl ToSql for SagaState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for SagaState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

#[cfg(test)]
impl SagaHandle {
    /// Returns a saga of the shop with this id.
    pub(super) fn example(id: &str) -> Self {
        let stream = StreamId::parse("order/o1").unwrap();
        let trigger = Trigger { stream, version: Version::new(1) };
        let (service, name) = ("order".into(), "place-order".into());
        Self { id: id.into(), trigger, service, name, digest: Digest::of(b"order") }
    }
}

#[cfg(test)]
mod tests;
