//! The rules for the SQL of components.
//!
//! *Invariant:* SQL of a component runs only inside a transaction of the host, and cannot end it unnoticed:
//! SQLite itself rolls back in some cases (`INSERT OR ROLLBACK`, a statement that exceeded its time), and the
//! statements after that would take effect alone.

#[cfg(test)]
mod tests;

use std::ffi::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode};

use super::functions::{self, REFUSED};
use crate::clock::Stopwatch;

/// Running time of all statements of one call. A page of a report takes milliseconds.
const MAX_SQL_TIME: Duration = Duration::from_secs(2);
/// Number of SQLite instructions between two checks of the time: some tenths of a millisecond.
const INSTRUCTIONS_PER_CHECK: c_int = 10_000;
/// Number of statements that a connection keeps prepared. A projection has about one per event that it
/// follows.
const MAX_PREPARED: usize = 64;
/// SQLite functions whose result may differ from call to call: `date('now')`.
const OF_THE_MOMENT: [&str; 12] = [
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "julianday",
    "random",
    "randomblob",
    "strftime",
    "time",
    "timediff",
    "unixepoch",
];
/// Prefix of the names of tables, indexes and so on that belong to the host.
const HOSTS_PREFIX: &str = "kontor_";

/// The longest value, and the longest row: twice the longest event. Functions of SQLite copy values often.
pub(super) const MAX_VALUE_BYTES: usize = 2 << 20;
/// The pages, of 4 KiB, that the empty tables of a schema may have.
const MAX_SCHEMA_PAGES: u32 = 1_024;

/// Limits of SQLite itself, for statements that would be expensive before the first check of the time.
const LIMITS: [(Limit, i32); 7] = [
    // One value or one row.
    (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES as i32),
    // One statement, or all of a schema.
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 100_000),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 1_000),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 10),
    // Matching takes time that grows with the pattern's wildcards as exponent.
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
];

/// The reason why a statement of a component has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqlError {
    #[error("the statements of one call may run for {} s", MAX_SQL_TIME.as_secs())]
    OutOfTime,
    #[error("the transaction has been rolled back by an earlier statement")]
    RolledBack,
    #[error("the result has more than {rows} rows or {bytes} bytes: add a LIMIT")]
    TooLarge { rows: usize, bytes: usize },
    #[error(transparent)]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::OutOfTime,
            _ => Self::Sqlite(error),
        }
    }
}

/// A connection that components may use. Its statements are a component's, except in [`Self::host`] and
/// [`Self::make_schema`].
pub(crate) struct Guarded {
    connection: Connection,
    rules: Arc<Mutex<Rules>>,
}

/// The author of a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Host,
    /// The manifest, with the schema of an empty database.
    Schema,
    Component,
}

struct Rules {
    speaker: Speaker,
    /// The rest of the call's time.
    left: Duration,
    /// The time of the running statement, which is interrupted when it exceeds `left`.
    running: Option<Stopwatch>,
    storage_error: Option<ErrorCode>,
    /// True if the call has prepared a statement with a function of [`OF_THE_MOMENT`].
    used_moment: bool,
}

impl Guarded {
    pub(crate) fn new(mut connection: Connection) -> rusqlite::Result<Self> {
        let rules = Arc::new(Mutex::new(Rules {
            speaker: Speaker::Component,
            left: MAX_SQL_TIME,
            running: None,
            storage_error: None,
            used_moment: false,
        }));
        for (limit, value) in LIMITS {
            connection.set_limit(limit, value)?;
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // Otherwise some statements are compiled again for each parameter value.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        functions::replace_all(&connection)?;
        connection.set_prepared_statement_cache_capacity(MAX_PREPARED);
        let clock = rules.clone();
        let late = move || {
            let rules = lock(&clock);
            rules.running.is_some_and(|running| running.elapsed() >= rules.left)
        };
        connection.progress_handler(INSTRUCTIONS_PER_CHECK, Some(late))?;
        let authority = rules.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            let mut rules = lock(&authority);
            rules.used_moment |= is_of_the_moment(context.action);
            if allowed(rules.speaker, context.action) { Authorization::Allow } else { Authorization::Deny }
        }))?;
        Ok(Self { connection, rules })
    }

    /// Runs the host's own SQL. It must not be prepared with `prepare_cached`: permissions are checked when a
    /// statement is prepared, so a component that knows its text would get it from the cache unchecked.
    pub(crate) fn host<T>(&self, work: impl FnOnce(&Connection) -> T) -> T {
        self.speak(Speaker::Host, work)
    }

    /// Creates the tables of a manifest in an empty database, within the time of a call and some pages.
    pub(crate) fn make_schema(&self, sql: &str) -> rusqlite::Result<()> {
        let before = self.host(|connection| limit_pages(connection, MAX_SCHEMA_PAGES))?;
        self.begin_call();
        lock(&self.rules).running = Some(Stopwatch::start());
        let made = self.speak(Speaker::Schema, |connection| connection.execute_batch(sql));
        lock(&self.rules).running = None;
        self.host(|connection| limit_pages(connection, before))?;
        made.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => too_much(error, "it takes too long"),
            Some(ErrorCode::DiskFull) => too_much(error, "it fills tables, which the service's events do"),
            _ => error,
        })
    }

    /// Sets the largest size of the database in bytes.
    pub(crate) fn limit_bytes(&self, bytes: u64) -> rusqlite::Result<()> {
        self.host(|connection| {
            let page: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
            limit_pages(connection, u32::try_from(bytes / page).unwrap_or(u32::MAX))
        })?;
        Ok(())
    }

    fn speak<T>(&self, speaker: Speaker, work: impl FnOnce(&Connection) -> T) -> T {
        lock(&self.rules).speaker = speaker;
        let result = work(&self.connection);
        lock(&self.rules).speaker = Speaker::Component;
        result
    }

    /// Starts a call: resets its time and the storage error of the call before.
    pub(crate) fn begin_call(&self) {
        let mut rules = lock(&self.rules);
        rules.left = MAX_SQL_TIME;
        rules.storage_error = None;
        if std::mem::take(&mut rules.used_moment) {
            // The functions of a statement are reported only when it is prepared.
            self.connection.flush_prepared_statement_cache();
        }
    }

    /// Returns whether the results of the call may depend on the time or on random numbers.
    pub(crate) fn used_moment(&self) -> bool {
        lock(&self.rules).used_moment
    }

    /// Runs one statement of a component.
    pub(super) fn statement<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        if !self.in_transaction() {
            return Err(SqlError::RolledBack);
        }
        let running = Stopwatch::start();
        lock(&self.rules).running = Some(running);
        let result = work(&self.connection);
        let mut rules = lock(&self.rules);
        rules.running = None;
        rules.left = rules.left.saturating_sub(running.elapsed());
        if let Err(SqlError::Sqlite(error)) = &result {
            let code = error.sqlite_error_code().filter(|code| Self::is_storage_error(*code));
            rules.storage_error = rules.storage_error.or(code);
        }
        result
    }

    /// Returns whether the host's transaction is still open.
    pub(crate) fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Returns the first error of this call that is not the component's fault.
    pub(crate) fn storage_error(&self) -> Option<ErrorCode> {
        lock(&self.rules).storage_error
    }

    /// Returns whether an error is one of the file or of its machine.
    pub(crate) fn is_storage_error(code: ErrorCode) -> bool {
        matches!(
            code,
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NotADatabase
        )
    }
}

/// Sets the largest number of pages of the database. Returns the one before.
fn limit_pages(connection: &Connection, pages: u32) -> rusqlite::Result<u32> {
    let before = connection.pragma_query_value(None, "max_page_count", |row| row.get(0))?;
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    Ok(before)
}

/// Gives an error of a schema a text that says what to do.
fn too_much(error: rusqlite::Error, says: &str) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, _) => {
            rusqlite::Error::SqliteFailure(code, Some(format!("{says}: a schema only creates empty tables")))
        }
        other => other,
    }
}

fn lock(rules: &Mutex<Rules>) -> MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists the allowed actions, so that future actions of SQLite are denied.
fn allowed(speaker: Speaker, action: AuthAction<'_>) -> bool {
    let schema = speaker == Speaker::Schema;
    match action {
        _ if speaker == Speaker::Host => true,
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => {
            let mut refused = REFUSED.iter().chain(["load_extension"].iter());
            !refused.any(|name| name.eq_ignore_ascii_case(function_name))
        }
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => is_free(table_name),
        AuthAction::CreateTable { table_name: name } | AuthAction::CreateView { view_name: name } => {
            schema && is_free(name)
        }
        AuthAction::CreateIndex { index_name: name, table_name }
        | AuthAction::CreateTrigger { trigger_name: name, table_name } => {
            schema && is_free(name) && is_free(table_name)
        }
        // Part of CREATE INDEX.
        AuthAction::Reindex { .. } => schema,
        _ => false,
    }
}

fn is_of_the_moment(action: AuthAction<'_>) -> bool {
    let AuthAction::Function { function_name } = action else { return false };
    OF_THE_MOMENT.iter().any(|name| name.eq_ignore_ascii_case(function_name))
}

fn is_free(name: &str) -> bool {
    name.get(..HOSTS_PREFIX.len()).is_none_or(|prefix| !prefix.eq_ignore_ascii_case(HOSTS_PREFIX))
}
