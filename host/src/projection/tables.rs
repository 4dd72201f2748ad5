//! The host's own tables in a read database: its position, and the parked streams.
//!
//! None of these statements is cached, see [`Guarded::host`].

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::operate::ParkedStream;
use crate::clock::Time;
use crate::log::EventLog;
use crate::model::{Digest, LogMark, Position, Recorded, StreamId, Version};
use crate::runtime::Guarded;

/// The tables. `position` and `hash`: the mark of the last event that is applied. `changes`: the number of
/// transactions that wrote the service's own tables. `component`: the digest of the component that fills the
/// database. `from_ms`: the time from which on recorded events are in it, null if all events are.
/// `complete_at`: the position from which on queries may see it, see [`Beginning`]. `version`
/// and `position` of a parked stream: those of its first event that is not applied; while a long stream is
/// being redriven, only the version is exact. `skipped`: the number of its later events, which were not
/// applied either.
pub(super) const SCHEMA: &str = "
    CREATE TABLE kontor_position (
        position INTEGER NOT NULL,
        hash BLOB NOT NULL,
        changes INTEGER NOT NULL,
        role TEXT NOT NULL,
        component TEXT NOT NULL,
        from_ms INTEGER,
        complete_at INTEGER NOT NULL
    ) STRICT;
    INSERT INTO kontor_position VALUES (0, zeroblob(32), 0, '', '', NULL, 0);
    CREATE TABLE kontor_parked (
        stream TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        position INTEGER NOT NULL,
        error TEXT NOT NULL,
        skipped INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX kontor_parked_since ON kontor_parked (position);
";

/// The use of a read database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Queries ask it.
    Live,
    /// It replaces the live one when it is as far.
    Building,
    /// Another version has replaced it, and may be rolled back.
    Kept,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Building => "building",
            Self::Kept => "kept",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Live, Self::Building, Self::Kept].into_iter().find(|one| one.as_str() == text)
    }
}

/// The place in the log where a read database begins. Default: the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    /// No event up to this one is in it.
    pub(super) after: LogMark,
    /// The time that the operator gave, or `None` if it begins with the log.
    pub(super) from: Option<Time>,
    /// The end of the log when the database is made: until it is as far, queries would see a past that was
    /// seen further on before, or less than clients know to be there.
    pub(super) complete_at: Position,
}

impl Beginning {
    /// The first event of a log.
    pub(super) fn first(log: &dyn EventLog) -> Self {
        Self { complete_at: *log.head().borrow(), ..Self::default() }
    }
}

/// The changes of a transaction to the host's tables.
pub(super) struct Progress<'a> {
    /// The event up to which all are applied, skipped or parked.
    pub(super) mark: LogMark,
    /// Events of parked streams.
    pub(super) skipped: &'a [Recorded],
    /// An event that could not be applied, and the reason.
    pub(super) parked: Option<(&'a Recorded, &'a str)>,
    /// The part of a parked stream that it applies.
    pub(super) redriven: Option<Redriven<'a>>,
}

/// The part of a parked stream that a transaction applies.
#[derive(Clone, Copy)]
pub(super) struct Redriven<'a> {
    pub(super) stream: &'a StreamId,
    /// The number of its events.
    pub(super) events: usize,
    /// The version to continue with, or `None` if that was the last, and the stream is not parked any more.
    pub(super) next: Option<Version>,
}

impl Progress<'_> {
    /// Changes only the mark.
    pub(super) fn to(mark: LogMark) -> Self {
        Self { mark, skipped: &[], parked: None, redriven: None }
    }
}

/// Returns the position up to which all events are applied, skipped or parked.
pub(super) fn position(connection: &Connection) -> rusqlite::Result<Position> {
    connection.query_row("SELECT position FROM kontor_position", [], |row| row.get(0))
}

/// Returns the mark of the event up to which all are applied, skipped or parked.
pub(super) fn mark(connection: &Connection) -> rusqlite::Result<LogMark> {
    connection.query_row("SELECT position, hash FROM kontor_position", [], |row| {
        Ok(LogMark { position: row.get(0)?, hash: row.get(1)? })
    })
}

/// Returns the number of transactions that applied events. The position alone says less: it also moves with
/// events that the read model does not subscribe to.
pub(super) fn changes(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT changes FROM kontor_position", [], |row| row.get(0))
}

/// Counts the open transaction as a change.
pub(super) fn count_change(database: &Guarded) -> rusqlite::Result<()> {
    let count = "UPDATE kontor_position SET changes = changes + 1";
    database.host(|connection| connection.execute(count, [])).map(drop)
}

/// Returns the database's role and the component that fills it, or `None` if they are not recorded.
pub(super) fn used_by(connection: &Connection) -> rusqlite::Result<Option<(Role, Digest)>> {
    connection.query_row("SELECT role, component FROM kontor_position", [], |row| {
        let (role, component): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(Role::parse(&role).zip(component.parse().ok()))
    })
}

/// Returns the time from which on recorded events are in it, or `None` if all events are, and the position
/// from which on queries may see it.
pub(super) fn extent(connection: &Connection) -> rusqlite::Result<(Option<Time>, Position)> {
    connection.query_row("SELECT from_ms, complete_at FROM kontor_position", [], |row| {
        Ok((row.get::<_, Option<u64>>(0)?.map(Time), row.get(1)?))
    })
}

/// Records the beginning of a new database, in the transaction that makes it.
pub(super) fn set_beginning(
    connection: &Connection,
    Beginning { after, from, complete_at }: Beginning,
) -> rusqlite::Result<()> {
    let set = "UPDATE kontor_position SET position = ?1, hash = ?2, from_ms = ?3, complete_at = ?4";
    let from_ms = from.map(|Time(ms)| ms);
    connection.execute(set, params![after.position, after.hash, from_ms, complete_at]).map(drop)
}

/// Records the database's role and the component that fills it, outside of any other transaction.
pub(super) fn set_role(connection: &Connection, role: Role, component: Digest) -> rusqlite::Result<()> {
    let set = "UPDATE kontor_position SET role = ?1, component = ?2";
    connection.execute(set, [role.as_str(), &component.to_string()]).map(drop)
}

/// Returns the parked streams. There are few, as few have failed; each costs its name in memory.
pub(super) fn parked(connection: &Connection) -> rusqlite::Result<HashSet<StreamId>> {
    streams(connection, "SELECT stream FROM kontor_parked")
}

fn streams<C: FromIterator<StreamId>>(connection: &Connection, sql: &str) -> rusqlite::Result<C> {
    let mut statement = connection.prepare(sql)?;
    let streams = statement.query_map([], |row| row.get::<_, String>(0))?;
    // Text that is not a stream's name matches no event.
    streams.filter_map(|stream| stream.map(|stream| StreamId::parse(&stream).ok()).transpose()).collect()
}

/// Returns all parked streams in the order in which they were parked.
pub(super) fn parked_in_order(connection: &Connection) -> rusqlite::Result<Vec<StreamId>> {
    streams(connection, "SELECT stream FROM kontor_parked ORDER BY position")
}

/// Returns up to `limit` streams that were parked after a position, in the order in which they were parked.
pub(super) fn parked_since(
    connection: &Connection,
    after: Position,
    limit: usize,
) -> rusqlite::Result<Vec<ParkedStream>> {
    let mut statement = connection.prepare(
        "SELECT stream, position, error, skipped FROM kontor_parked
         WHERE position > ?1 ORDER BY position LIMIT ?2",
    )?;
    let parked = statement.query_map(params![after, limit], |row| {
        Ok(ParkedStream {
            stream: row.get(0)?,
            position: row.get(1)?,
            error: row.get(2)?,
            skipped: row.get(3)?,
        })
    })?;
    parked.collect()
}

/// Returns the version of the first event of a parked stream that is not applied.
pub(super) fn unapplied(connection: &Connection, stream: &StreamId) -> rusqlite::Result<Version> {
    let version = "SELECT version FROM kontor_parked WHERE stream = ?1";
    connection.query_row(version, [stream.as_str()], |row| row.get(0))
}

/// Begins the transaction of a batch.
pub(super) fn begin(database: &Guarded) -> rusqlite::Result<()> {
    database.begin_call();
    database.host(|connection| connection.execute_batch("BEGIN IMMEDIATE"))
}

/// Commits the rows that the component wrote and the host's progress, both or neither.
pub(super) fn commit(database: &Guarded, progress: &Progress<'_>) -> rusqlite::Result<()> {
    database.host(|connection| {
        if let Some((event, error)) = progress.parked {
            connection.execute(
                "INSERT INTO kontor_parked (stream, version, position, error) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET version = ?2, position = ?3, error = ?4",
                params![event.stream.as_str(), event.version, event.position, error],
            )?;
        }
        match progress.redriven {
            Some(Redriven { stream, next: None, .. }) => {
                connection.execute("DELETE FROM kontor_parked WHERE stream = ?1", [stream.as_str()])?;
            }
            Some(Redriven { stream, events, next: Some(next) }) => {
                connection.execute(
                    "UPDATE kontor_parked SET version = ?2, skipped = max(skipped - ?3, 0) WHERE stream = ?1",
                    params![stream.as_str(), next, events],
                )?;
            }
            None => {}
        }
        for event in progress.skipped {
            connection.execute(
                "UPDATE kontor_parked SET skipped = skipped + 1 WHERE stream = ?1",
                params![event.stream.as_str()],
            )?;
        }
        let LogMark { position, hash } = progress.mark;
        connection.execute("UPDATE kontor_position SET position = ?1, hash = ?2", params![position, hash])?;
        connection.execute_batch("COMMIT")
    })
}

/// Rolls the transaction back, unless SQLite has done so by itself.
pub(super) fn roll_back(database: &Guarded) -> rusqlite::Result<()> {
    match database.in_transaction() {
        true => database.host(|connection| connection.execute_batch("ROLLBACK")),
        false => Ok(()),
    }
}
