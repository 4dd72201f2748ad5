//! Moves what has been committed from the write-ahead log into the database, so that no commit has to.

use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

/// The pause between two looks: short enough that the WAL grows by a few megabytes at most between them.
const INTERVAL: Duration = Duration::from_millis(20);

/// Pages (of 4 KiB) in the WAL that are worth a checkpoint: 8 MB. Smaller ones would write the same pages again and again.
const WORTHWHILE_PAGES: i64 = 2_048;

/// Looks after commits, until the writer has ended. Idle as long as nothing is committed.
pub(super) fn run(connection: &Connection, committed: &Receiver<()>) {
    while committed.recv().is_ok() {
        if let Err(error) = checkpoint(connection) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the event log's checkpoint failed");
        }
        thread::sleep(INTERVAL);
    }
}

fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    // NOOP does nothing but count; PASSIVE waits for nobody and makes nobody wait.
    let waiting: i64 = connection.query_row("PRAGMA wal_checkpoint(noop)", [], |row| {
        Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)
    })?;
    if waiting >= WORTHWHILE_PAGES {
        connection.query_row("PRAGMA wal_checkpoint(passive)", [], |_| Ok(()))?;
    }
    Ok(())
}
