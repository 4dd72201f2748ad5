//! The rules for the SQL of components.
//!
//! *Invariant:* SQL of a component runs only inside a transaction of the host, and cannot end it unnoticed:
//! SQLite itself rolls back in some cases (`INSERT OR ROLLBACK`, a statement that exceeded its time), and the
//! statements after that would take effect alone.

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

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "
        CREATE TABLE products (id TEXT PRIMARY KEY, stock INTEGER CHECK (stock >= 0));
        CREATE TABLE names AS SELECT 1 AS number, 'one' AS name;
        CREATE INDEX products_by_stock ON products (stock);
        CREATE VIEW sold_out AS SELECT id FROM products WHERE stock = 0;
        CREATE VIEW spy AS SELECT * FROM kontor_position;
        CREATE TRIGGER count AFTER INSERT ON products BEGIN UPDATE names SET number = number + 1; END;
        INSERT INTO products VALUES ('a', 1);";

    /// A database with a table of the host, inside of a transaction.
    fn guarded() -> Guarded {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE kontor_position (position); INSERT INTO kontor_position VALUES (7)")
            .unwrap();
        let guarded = Guarded::new(connection).unwrap();
        guarded.make_schema(SCHEMA).unwrap();
        guarded.host(|connection| connection.execute_batch("BEGIN")).unwrap();
        guarded.begin_call();
        guarded
    }

    fn run(guarded: &Guarded, sql: &str) -> Result<(), SqlError> {
        guarded.statement(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        })
    }

    fn denial(guarded: &Guarded, sql: &str) -> String {
        match run(guarded, sql) {
            Ok(()) => panic!("{sql} must be denied"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn ordinary_sql_is_allowed() {
        let guarded = guarded();
        for sql in [
            "INSERT INTO products VALUES ('b', 2) ON CONFLICT (id) DO UPDATE SET stock = excluded.stock",
            "UPDATE products SET stock = stock + 1 RETURNING stock",
            "SELECT count(*), sum(stock), json_group_array(id ORDER BY id) FROM products",
            "SELECT * FROM sold_out",
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
            "SELECT id, row_number() OVER (ORDER BY stock) FROM products WHERE id LIKE 'a%'",
            "DELETE FROM products",
        ] {
            run(&guarded, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    #[test]
    fn every_call_that_uses_the_time_or_random_numbers_is_recognized() {
        let guarded = guarded();
        for (sql, expected) in [
            ("SELECT date('now')", true),
            ("SELECT CURRENT_TIMESTAMP", true),
            ("SELECT Random()", true),
            ("SELECT upper(id) FROM products", false),
            ("SELECT date('now')", true),
        ] {
            guarded.begin_call();
            run(&guarded, sql).unwrap();
            assert_eq!(guarded.used_moment(), expected, "{sql}");
        }
    }

    #[test]
    fn a_component_reaches_nothing_but_its_tables() {
        let guarded = guarded();
        for sql in [
            "ATTACH ':memory:' AS other",
            "DETACH main",
            "PRAGMA journal_mode = off",
            "PRAGMA user_version",
            "SELECT * FROM pragma_user_version",
            "BEGIN",
            "COMMIT",
            "END",
            "ROLLBACK",
            "SAVEPOINT here",
            "RELEASE here",
            "VACUUM",
            "VACUUM INTO 'copy.db'",
            "ANALYZE",
            "REINDEX",
            "SELECT load_extension('evil')",
            "SELECT json_patch('{}', '{}')",
            "SELECT unhex('6-1', '-')",
            "CREATE TABLE t (a)",
            "CREATE TEMP TABLE t (a)",
            "CREATE TEMP VIEW v AS SELECT 1",
            "CREATE TEMP TRIGGER x AFTER INSERT ON products BEGIN SELECT 1; END",
            "CREATE INDEX i ON products (id)",
            "CREATE VIRTUAL TABLE t USING fts5 (a)",
            "ALTER TABLE products RENAME TO goods",
            "DROP TABLE products",
            "DROP INDEX products_by_stock",
            "DROP VIEW sold_out",
            "DROP TRIGGER count",
            "SELECT * FROM kontor_position",
            "SELECT * FROM Kontor_Position",
            "SELECT * FROM spy",
            "UPDATE kontor_position SET position = 0",
            "INSERT INTO kontor_position VALUES (8)",
            "DELETE FROM kontor_position",
            "DELETE FROM sqlite_schema",
            "SELECT 1; SELECT 2",
        ] {
            denial(&guarded, sql);
        }
        assert!(guarded.in_transaction());
        assert_eq!(guarded.storage_error(), None);
    }

    #[test]
    fn statements_of_the_host_are_denied_to_components() {
        let guarded = guarded();
        let update = "UPDATE kontor_position SET position = 8";
        guarded.host(|connection| connection.execute(update, [])).unwrap();
        denial(&guarded, update);
    }

    #[test]
    fn a_schema_creates_tables_and_nothing_else() {
        for sql in [
            "CREATE TABLE kontor_mine (a)",
            "CREATE TABLE t AS SELECT * FROM kontor_position",
            "CREATE INDEX i ON kontor_position (position)",
            "CREATE TRIGGER x AFTER UPDATE ON kontor_position BEGIN SELECT 1; END",
            "CREATE TRIGGER kontor_x AFTER UPDATE ON products BEGIN SELECT 1; END",
            "CREATE TEMP TABLE t (a)",
            "CREATE VIRTUAL TABLE t USING fts5 (a)",
            "DROP TABLE products",
            "PRAGMA user_version = 9",
            "COMMIT",
            "ATTACH ':memory:' AS other",
        ] {
            let created = guarded().make_schema(sql).map_err(|error| error.sqlite_error_code());
            assert!(created.is_err(), "{sql} must be denied");
        }
    }

    #[test]
    fn a_schema_that_fills_tables_or_never_ends_is_refused() {
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
        for (schema, says) in [
            (format!("CREATE TABLE t AS {endless} SELECT zeroblob(1000000) FROM n"), "it fills tables"),
            (format!("CREATE TABLE t AS {endless} SELECT max(i) FROM n"), "it takes too long"),
        ] {
            let guarded = Guarded::new(Connection::open_in_memory().unwrap()).unwrap();
            let error = guarded.make_schema(&schema).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn a_database_does_not_grow_beyond_its_limit() {
        let guarded = guarded();
        guarded.limit_bytes(1 << 20).unwrap();
        let filled = run(&guarded, "INSERT INTO products SELECT hex(randomblob(500000)), 1");
        filled.unwrap();
        let full = run(&guarded, "INSERT INTO products SELECT hex(randomblob(500000)), 1").unwrap_err();
        assert!(
            matches!(&full, SqlError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
        );
    }

    #[test]
    fn a_function_of_large_values_takes_no_longer_than_they_are() {
        let guarded = guarded();
        let (long, wanted) = ("hex(zeroblob(900000))", "hex(zeroblob(450000)) || 'x'");
        for expression in [
            format!("instr({long}, {wanted})"),
            "instr(zeroblob(1800000), zeroblob(900000) || x'01')".to_owned(),
            format!("length(replace({long}, {wanted}, ''))"),
            format!("length(trim({long}, {wanted}))"),
        ] {
            // The time limit of a call would not end it, but would be exceeded.
            run(&guarded, &format!("SELECT {expression}")).unwrap();
            assert!(!lock(&guarded.rules).left.is_zero(), "{expression}");
            guarded.begin_call();
        }
    }

    #[test]
    fn nothing_runs_after_a_rollback() {
        let guarded = guarded();
        denial(&guarded, "INSERT OR ROLLBACK INTO products VALUES ('b', -1)");
        assert!(!guarded.in_transaction());
        let error = run(&guarded, "INSERT INTO products VALUES ('c', 1)").unwrap_err();
        assert!(matches!(error, SqlError::RolledBack), "{error}");
    }

    #[test]
    fn a_call_has_a_time_limit() {
        let guarded = guarded();
        lock(&guarded.rules).left = Duration::from_millis(5);
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        assert!(matches!(run(&guarded, endless), Err(SqlError::OutOfTime)));
        assert!(lock(&guarded.rules).left.is_zero());
        assert!(matches!(run(&guarded, endless), Err(SqlError::OutOfTime)), "nothing is left");
        guarded.begin_call();
        run(&guarded, "SELECT 1").unwrap();
    }

    #[test]
    fn statements_have_a_size_limit() {
        let guarded = guarded();
        for sql in [
            &format!("SELECT '{}'", "x".repeat(100_000)),
            "SELECT zeroblob(9000000)",
            &format!("SELECT {}1", "1+".repeat(300)),
        ] {
            denial(&guarded, sql);
        }
    }
}
