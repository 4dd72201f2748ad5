//! The common parts of database files that are derived from the log. Each stores the mark of the last event
//! that it has applied. One that is missing, damaged or of another log is made anew.

use std::io::{self, ErrorKind};
use std::path::Path;

use rusqlite::{Connection, ErrorCode, ffi};

use crate::garbage::{Collection, Garbage};

/// Returns whether an error says that a file is damaged: whether making it anew helps. It does not help
/// against a full disk or a missing permission.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
        )
    )
}

/// Opens a derived database. After a power cut it may be some commits behind, as after a crash.
pub(crate) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    Ok(connection)
}

/// Opens a derived database that has this layout. Returns `None` if there is none.
pub(crate) fn existing(file: &Path, layout: u32) -> rusqlite::Result<Option<Connection>> {
    if !file.exists() {
        return Ok(None);
    }
    let connection = connect(file)?;
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok((found == layout).then_some(connection))
}

/// Fails if the structure of a database is damaged. Reads all of it.
pub(crate) fn check(connection: &Connection) -> rusqlite::Result<()> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(found))),
    }
}

/// The number of rows that are removed in one transaction, which takes some milliseconds: others wait for it.
const REMOVED_AT_ONCE: u64 = 1_000;

/// Rows of a table that nothing needs any more.
pub(crate) struct Rows {
    pub(crate) table: &'static str,
    /// The column that names a row.
    pub(crate) key: &'static str,
    /// The condition on a row and one parameter.
    pub(crate) condition: &'static str,
    /// The bytes of a row.
    pub(crate) size: &'static str,
}

impl Rows {
    /// Collects all of the rows, in as many transactions as it takes.
    pub(crate) fn collect_all(
        &self,
        connection: &Connection,
        parameter: &str,
        collection: Collection,
    ) -> rusqlite::Result<Garbage> {
        let mut garbage = Garbage::default();
        loop {
            let (some, has_more) = self.collect(connection, parameter, collection)?;
            garbage += some;
            if !has_more {
                return Ok(garbage);
            }
        }
    }

    /// Counts all of the rows, or removes some of them. Returns also whether there may be more.
    pub(crate) fn collect(
        &self,
        connection: &Connection,
        parameter: &str,
        collection: Collection,
    ) -> rusqlite::Result<(Garbage, bool)> {
        let Self { table, key, condition, size } = self;
        let rows = match collection {
            Collection::DryRun => format!("SELECT {size} FROM {table} WHERE {condition}"),
            Collection::Remove => format!(
                "DELETE FROM {table} WHERE {key} IN
                     (SELECT {key} FROM {table} WHERE {condition} LIMIT {REMOVED_AT_ONCE})
                 RETURNING {size}"
            ),
        };
        let mut garbage = Garbage::default();
        for bytes in connection.prepare(&rows)?.query_map([parameter], |row| row.get(0))? {
            garbage += Garbage { items: 1, bytes: bytes? };
        }
        Ok((garbage, collection == Collection::Remove && garbage.items == REMOVED_AT_ONCE))
    }
}

/// Removes a database with the files that SQLite keeps beside it, if they exist.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
