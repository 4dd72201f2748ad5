//! The read databases of the baselines.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Opens a read database with the settings of the host's, and creates its tables.
pub(crate) fn open(file: &Path, schema: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "wal_autocheckpoint", 16_384)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(schema)?;
    Ok(connection)
}
