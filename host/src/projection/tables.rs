//! The host's own tables in a read database: how far it is, and which streams are parked.
//!
//! None of these statements is cached, see [`Guarded::host`].

use std::collections::HashSet;

use rusqlite::{Connection, params};

use crate::model::{Position, Recorded, StreamId};
use crate::runtime::Guarded;

/// `changes`: how often the service's own tables were written. `skipped`: the events of the stream that came after the one that could not be applied.
pub(super) const SCHEMA: &str = "
    CREATE TABLE kontor_position (position INTEGER NOT NULL, changes INTEGER NOT NULL) STRICT;
    INSERT INTO kontor_position VALUES (0, 0);
    CREATE TABLE kontor_parked (
        stream TEXT PRIMARY KEY,
        position INTEGER NOT NULL,
        error TEXT NOT NULL,
        skipped INTEGER NOT NULL DEFAULT 0
    ) STRICT;
";

/// What a transaction changes besides the service's own tables.
pub(super) struct Progress<'a> {
    /// Everything up to here is dealt with.
    pub(super) position: Position,
    /// Events of parked streams.
    pub(super) skipped: &'a [Recorded],
    /// An event that could not be applied, and why.
    pub(super) parked: Option<(&'a Recorded, &'a str)>,
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

/// The streams that are parked. As many as have ever failed, so few; each costs its name in memory.
pub(super) fn parked(connection: &Connection) -> rusqlite::Result<HashSet<StreamId>> {
    let mut statement = connection.prepare("SELECT stream FROM kontor_parked")?;
    let streams = statement.query_map([], |row| row.get::<_, String>(0))?;
    // What is no stream's name, nobody will ask for.
    streams.filter_map(|stream| stream.map(|stream| StreamId::parse(&stream).ok()).transpose()).collect()
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
                "INSERT INTO kontor_parked (stream, position, error) VALUES (?1, ?2, ?3)",
                params![event.stream.as_str(), event.position, error],
            )?;
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
