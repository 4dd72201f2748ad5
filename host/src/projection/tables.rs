//! The host's own tables in a read database: how far it is, and which streams are parked since when.
//!
//! None of these statements is cached, see [`Guarded::host`].

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::operate::ParkedStream;
use crate::clock::Time;
use crate::model::{Digest, Position, Recorded, StreamId, Version};
use crate::runtime::Guarded;

/// `changes`: how often the service's own tables were written. `component`: the digest of the one that fills it. `from_ms`: the
/// time from which on events are in it, null if all are. `version` and
/// `position` of a parked stream: those of its first event that is not applied; where a long stream is being redriven, only
/// the version is exact. `skipped`: the events that came after it and were passed over.
pub(super) const SCHEMA: &str = "
    CREATE TABLE kontor_position (
        position INTEGER NOT NULL,
        changes INTEGER NOT NULL,
        role TEXT NOT NULL,
        component TEXT NOT NULL,
        from_ms INTEGER
    ) STRICT;
    INSERT INTO kontor_position VALUES (0, 0, '', '', NULL);
    CREATE TABLE kontor_parked (
        stream TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        position INTEGER NOT NULL,
        error TEXT NOT NULL,
        skipped INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX kontor_parked_since ON kontor_parked (position);
";

/// What a read database is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Queries ask it.
    Live,
    /// It is to take the place of the live one when it is as far.
    Building,
    /// Another version has taken its place, which may be rolled back.
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

/// Where a read database begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    /// Nothing up to here is in it.
    pub(super) after: Position,
    /// The time that was asked for; none if it begins with the log.
    pub(super) from: Option<Time>,
}

/// What a transaction changes besides the service's own tables.
pub(super) struct Progress<'a> {
    /// Everything up to here is dealt with.
    pub(super) position: Position,
    /// Events of parked streams.
    pub(super) skipped: &'a [Recorded],
    /// An event that could not be applied, and why.
    pub(super) parked: Option<(&'a Recorded, &'a str)>,
    pub(super) redriven: Option<Redriven<'a>>,
}

/// What a transaction applies of a parked stream.
#[derive(Clone, Copy)]
pub(super) struct Redriven<'a> {
    pub(super) stream: &'a StreamId,
    pub(super) events: usize,
    /// The version to go on with; none if that was all, and the stream is parked no more.
    pub(super) next: Option<Version>,
}

impl Progress<'_> {
    /// Nothing but the position.
    pub(super) fn to(position: Position) -> Self {
        Self { position, skipped: &[], parked: None, redriven: None }
    }
}

pub(super) fn position(connection: &Connection) -> rusqlite::Result<Position> {
    connection.query_row("SELECT position FROM kontor_position", [], |row| row.get(0))
}

/// How often something was applied, other than the position, which moves with every event of the log.
pub(super) fn changes(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT changes FROM kontor_position", [], |row| row.get(0))
}

/// Counts what the running transaction applies.
pub(super) fn count_change(database: &Guarded) -> rusqlite::Result<()> {
    let count = "UPDATE kontor_position SET changes = changes + 1";
    database.host(|connection| connection.execute(count, [])).map(drop)
}

/// What it is there for, and the component that fills it; none if it does not say.
pub(super) fn used_by(connection: &Connection) -> rusqlite::Result<Option<(Role, Digest)>> {
    connection.query_row("SELECT role, component FROM kontor_position", [], |row| {
        let (role, component): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(Role::parse(&role).zip(component.parse().ok()))
    })
}

/// The time from which on events are in it; none if all are.
pub(super) fn from(connection: &Connection) -> rusqlite::Result<Option<Time>> {
    let from_ms = connection.query_row("SELECT from_ms FROM kontor_position", [], |row| row.get(0));
    from_ms.map(|from_ms: Option<u64>| from_ms.map(Time))
}

/// Has a new database begin later than the log, in the transaction that makes it.
pub(super) fn set_beginning(
    connection: &Connection,
    Beginning { after, from }: Beginning,
) -> rusqlite::Result<()> {
    let set = "UPDATE kontor_position SET position = ?1, from_ms = ?2";
    connection.execute(set, params![after, from.map(|Time(ms)| ms)]).map(drop)
}

/// Notes that, outside of any other transaction.
pub(super) fn set_role(connection: &Connection, role: Role, component: Digest) -> rusqlite::Result<()> {
    let set = "UPDATE kontor_position SET role = ?1, component = ?2";
    connection.execute(set, [role.as_str(), &component.to_string()]).map(drop)
}

/// The streams that are parked. As many as have ever failed, so few; each costs its name in memory.
pub(super) fn parked(connection: &Connection) -> rusqlite::Result<HashSet<StreamId>> {
    streams(connection, "SELECT stream FROM kontor_parked")
}

fn streams<C: FromIterator<StreamId>>(connection: &Connection, sql: &str) -> rusqlite::Result<C> {
    let mut statement = connection.prepare(sql)?;
    let streams = statement.query_map([], |row| row.get::<_, String>(0))?;
    // What is no stream's name, nobody will ask for.
    streams.filter_map(|stream| stream.map(|stream| StreamId::parse(&stream).ok()).transpose()).collect()
}

/// All parked streams in the order in which they were parked.
pub(super) fn parked_in_order(connection: &Connection) -> rusqlite::Result<Vec<StreamId>> {
    streams(connection, "SELECT stream FROM kontor_parked ORDER BY position")
}

/// Up to `limit` parked streams behind a position, in the order in which they were parked.
pub(super) fn parked_since(
    connection: &Connection,
    after: Position,
    limit: usize,
) -> rusqlite::Result<Vec<ParkedStream>> {
    let mut statement = connection.prepare(
        "SELECT stream, position, error, skipped FROM kontor_parked WHERE position > ?1 ORDER BY position LIMIT ?2",
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

/// The version of the first event of a parked stream that is not applied.
pub(super) fn unapplied(connection: &Connection, stream: &StreamId) -> rusqlite::Result<Version> {
    let version = "SELECT version FROM kontor_parked WHERE stream = ?1";
    connection.query_row(version, [stream.as_str()], |row| row.get(0))
}

/// Begins the transaction of a batch.
pub(super) fn begin(database: &Guarded) -> rusqlite::Result<()> {
    database.begin_call();
    database.host(|connection| connection.execute_batch("BEGIN IMMEDIATE"))
}

/// Ends it: what the component wrote and the host's progress, both or none.
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
        connection.execute("UPDATE kontor_position SET position = ?1", params![progress.position])?;
        connection.execute_batch("COMMIT")
    })
}

/// Undoes the transaction, if SQLite has not done so by itself.
pub(super) fn roll_back(database: &Guarded) -> rusqlite::Result<()> {
    match database.in_transaction() {
        true => database.host(|connection| connection.execute_batch("ROLLBACK")),
        false => Ok(()),
    }
}
