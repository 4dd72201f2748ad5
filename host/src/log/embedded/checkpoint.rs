//! Checkpoints in the background: they move commits from the write-ahead log (WAL) into the database, so that
//! no commit has to.

use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use crate::error::Chain;

/// The pause between two checks of the WAL: so short that it grows by a few megabytes at most meanwhile.
const INTERVAL: Duration = Duration::from_millis(20);

/// The number of pages (of 4 KiB) in the WAL that are worth a checkpoint: 8 MB. Smaller checkpoints would
/// write the same pages again and again.
const WORTHWHILE_PAGES: i64 = 2_048;

/// Does checkpoints until the writer has ended, and then a last one, so that the database's file alone is the
/// log: somebody may copy it. Idle while nothing is committed.
pub(super) fn run(connection: &Connection, committed: &Receiver<()>) {
    while committed.recv().is_ok() {
        if let Err(error) = checkpoint(connection) {
            tracing::warn!(error = %Chain(&error), "a checkpoint of the log failed; it is retried");
        }
        thread::sleep(INTERVAL);
    }
    // SQLite does the same when the last connection is closed; but that may be a reader's, which cannot.
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(())) {
        tracing::warn!(error = %Chain(&error), "the last checkpoint failed; the next start does it");
    }
}

fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    // NOOP only counts; PASSIVE neither waits for readers and writers nor makes them wait.
    let waiting: i64 = connection.query_row("PRAGMA wal_checkpoint(noop)", [], |row| {
        Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)
    })?;
    if waiting >= WORTHWHILE_PAGES {
        connection.query_row("PRAGMA wal_checkpoint(passive)", [], |_| Ok(()))?;
    }
    Ok(())
}
