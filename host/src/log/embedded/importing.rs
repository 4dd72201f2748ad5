//! The mark of a log that is being imported. It is a table of its own, so that it goes wherever the file
//! goes.

use rusqlite::Connection;

/// Sets or removes the mark.
pub(super) fn mark(connection: &Connection, importing: bool) -> rusqlite::Result<()> {
    connection.execute_batch(match importing {
        true => "CREATE TABLE IF NOT EXISTS importing (never_filled INTEGER) STRICT",
        false => "DROP TABLE IF EXISTS importing",
    })
}

/// Returns whether the log has the mark.
pub(super) fn is_marked(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'importing')", [], |row| {
        row.get(0)
    })
}
