//! The database file of a read model. It can be deleted at any time, and is deleted when anything is wrong
//! with it: a new one is then filled from the first event on.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Notify;
use uuid::Uuid;

use super::ProjectionsError;
use super::files::Name;
use super::tables::{self, Beginning, Role};
use crate::clock::Time;
use crate::contract::ReadModel;
use crate::error::Chain;
use crate::log::derived;
use crate::model::{Digest, LogMark, Position, ServiceName, StreamId, hash_prefix};
use crate::runtime::Guarded;

/// The layout of the host's tables; raised with every change of them.
const LAYOUT: u32 = 7;

/// Connections kept for the next queries. Each has a page cache of up to 2 MB and its prepared statements.
const MAX_IDLE: usize = 8;

/// The page cache of the connection that fills a database, in KiB: a transaction of ten thousand events
/// changes thousands of pages (of 4 KiB) of a large read model, all over its indexes. SQLite's default of 2
/// MB would write and reread them within the transaction.
const WRITER_CACHE_KIB: i64 = 64 << 10;

/// Pages in the WAL after which they are written back: 64 MB, a few such transactions. These change many of
/// the same pages, and each checkpoint costs a sync.
const CHECKPOINT_PAGES: i64 = 16_384;

/// One version of a service's read model, as queries see it.
pub(crate) struct Database {
    file: PathBuf,
    /// The largest size of the file.
    max_bytes: u64,
    name: Name,
    model: ReadModel,
    /// The time from which on recorded events are in it, or `None` if all events are.
    from: Option<Time>,
    /// The position from which on queries may see it.
    complete_at: Position,
    /// A unique id. Changes that were counted before the file was opened may be those of another file, or
    /// their queries may have run under another configuration.
    opening: Uuid,
    /// The position up to which all events are applied. The position in the file may be lower: events that
    /// the read model does not subscribe to are not worth a transaction.
    position: AtomicU64,
    /// The number of parked streams.
    parked: AtomicU64,
    /// Notified when a query finds the file damaged.
    damaged: Notify,
    /// Connections for the next queries.
    idle: Mutex<Vec<Guarded>>,
    /// True if another database has replaced it.
    retired: AtomicBool,
}

impl Drop for Database {
    fn drop(&mut self) {
        if *self.retired.get_mut()
            && let Err(error) = derived::remove(&self.file)
        {
            let file = self.file.display();
            tracing::warn!(
                %file,
                error = %Chain(&error),
                "failed to remove a replaced read database; the next start removes it"
            );
        }
    }
}

/// The connection that fills a database, and the content of the host's tables in it.
pub(super) struct Writer {
    pub(super) connection: Guarded,
    /// The event up to which all are applied, skipped or parked.
    pub(super) mark: LogMark,
    pub(super) parked: HashSet<StreamId>,
    pub(super) role: Role,
    /// The component whose calls fill it.
    pub(super) component: Digest,
    /// The time from which on recorded events are in it, or `None` if all events are.
    from: Option<Time>,
    /// The position from which on queries may see it.
    complete_at: Position,
    /// See [`fingerprint`].
    fingerprint: i32,
}

impl Database {
    pub(super) fn new(
        (file, max_bytes): (PathBuf, u64),
        name: Name,
        model: &ReadModel,
        writer: &Writer,
    ) -> Arc<Self> {
        Arc::new(Self {
            file,
            max_bytes,
            name,
            model: model.clone(),
            from: writer.from,
            complete_at: writer.complete_at,
            opening: Uuid::now_v7(),
            position: AtomicU64::new(writer.mark.position.get()),
            parked: AtomicU64::new(writer.parked.len() as u64),
            damaged: Notify::new(),
            idle: Mutex::default(),
            retired: AtomicBool::new(false),
        })
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }

    /// Marks the file for removal; the end of the last query removes it.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Returns whether this is a database of that read model.
    pub(crate) fn is_of(&self, model: &ReadModel) -> bool {
        self.model == *model
    }

    /// Opens another connection to fill it, in place of one that was lost in a call.
    pub(super) fn writer(&self) -> rusqlite::Result<Guarded> {
        connect(&self.file, self.max_bytes)
    }

    /// Returns the version of the read model.
    pub(super) fn version(&self) -> u32 {
        self.model.version
    }

    pub(super) fn from(&self) -> Option<Time> {
        self.from
    }

    /// Returns the position from which on queries may see it: the end of the log when it was made.
    pub(crate) fn complete_at(&self) -> Position {
        self.complete_at
    }

    pub(super) fn position(&self) -> Position {
        Position::new(self.position.load(Ordering::Acquire))
    }

    pub(super) fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    /// Shows that all events up to `position` are committed, with this number of parked streams.
    pub(super) fn advance(&self, position: Position, parked: usize) {
        self.parked.store(parked as u64, Ordering::Relaxed);
        self.position.store(position.get(), Ordering::Release);
    }

    /// Resolves when a query has found the file damaged.
    pub(super) async fn damaged(&self) {
        self.damaged.notified().await;
    }

    /// Returns a reading connection in a transaction, and the position that this transaction reflects.
    pub(crate) fn begin_read(&self) -> rusqlite::Result<(Guarded, Position)> {
        // Loaded before the transaction begins, which sees all events up to here.
        let applied = self.position();
        let pooled = self.idle().pop();
        let reader = pooled.map_or_else(|| connect_reader(&self.file), Ok)?;
        reader.begin_call();
        let recorded = reader.host(|connection| {
            connection.execute_batch("BEGIN")?;
            tables::position(connection)
        });
        match recorded {
            Ok(recorded) => Ok((reader, recorded.max(applied))),
            Err(error) => {
                self.report(error.sqlite_error_code());
                Err(error)
            }
        }
    }

    /// Returns the identity of the content that a reader sees: the opening of the database and the number of
    /// its changes.
    pub(crate) fn content(&self, reader: &Guarded) -> rusqlite::Result<(Uuid, u64)> {
        let changes = reader.host(tables::changes);
        self.report(changes.as_ref().err().and_then(rusqlite::Error::sqlite_error_code));
        Ok((self.opening, changes?))
    }

    /// Takes a connection back.
    pub(crate) fn end_read(&self, reader: Guarded) {
        self.report(reader.storage_error());
        // A connection that has failed, or that cannot end its transaction, is not used again.
        let ended = reader.storage_error().is_none() && tables::roll_back(&reader).is_ok();
        let mut idle = self.idle();
        if ended && idle.len() < MAX_IDLE {
            idle.push(reader);
        }
    }

    /// Reads the host's own tables, beside the connection that fills the database. Blocks while SQLite works.
    pub(super) fn look_up<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let (reader, _) = self.begin_read()?;
        let answer = reader.host(question);
        self.end_read(reader);
        answer
    }

    /// Notifies the runner if the error means that the file is damaged.
    fn report(&self, code: Option<ErrorCode>) {
        if code.is_some_and(is_damage) {
            self.damaged.notify_one();
        }
    }

    /// Removes the file, so that the next opening recreates it.
    pub(super) fn discard(&self) -> io::Result<()> {
        derived::remove(&self.file)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Guarded>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Opens a file. Returns `None` if its content is not that of a read database.
    pub(super) fn existing(file: &Path, max_bytes: u64) -> rusqlite::Result<Option<Self>> {
        let connection = connect(file, max_bytes)?;
        let (fingerprint, mark, parked, (from, complete_at), used_by) =
            connection.host(|connection| -> rusqlite::Result<_> {
                let fingerprint = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
                let (mark, parked) = (tables::mark(connection)?, tables::parked(connection)?);
                Ok((fingerprint, mark, parked, tables::extent(connection)?, tables::used_by(connection)?))
            })?;
        Ok(used_by.map(|(role, component)| Self {
            connection,
            mark,
            parked,
            role,
            component,
            from,
            complete_at,
            fingerprint,
        }))
    }

    /// Makes the file of an empty database.
    pub(super) fn new(
        (file, max_bytes): (&Path, u64),
        service: &ServiceName,
        model: &ReadModel,
        role: Role,
        component: Digest,
        beginning: Beginning,
    ) -> Result<Self, ProjectionsError> {
        let failed = |source| ProjectionsError::Database { file: file.to_owned(), source };
        let connection = connect(file, max_bytes).map_err(failed)?;
        let begin = |connection: &Connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            connection.execute_batch(tables::SCHEMA)
        };
        connection.host(begin).map_err(failed)?;
        connection
            .make_schema(&model.schema)
            .map_err(|source| ProjectionsError::Schema { service: service.clone(), source })?;
        let fingerprint = fingerprint(model);
        let commit = |connection: &Connection| {
            tables::set_role(connection, role, component)?;
            tables::set_beginning(connection, beginning)?;
            connection.pragma_update(None, "user_version", fingerprint)?;
            connection.execute_batch("COMMIT")
        };
        connection.host(commit).map_err(failed)?;
        let Beginning { after: mark, from, complete_at } = beginning;
        Ok(Self { connection, mark, parked: HashSet::new(), role, component, from, complete_at, fingerprint })
    }

    pub(super) fn is_of(&self, model: &ReadModel) -> bool {
        self.fingerprint == fingerprint(model)
    }

    /// Records the database's role from now on, and the component that fills it.
    pub(super) fn assign(&mut self, role: Role, component: Digest) -> rusqlite::Result<()> {
        if (self.role, self.component) != (role, component) {
            self.connection.host(|connection| tables::set_role(connection, role, component))?;
            (self.role, self.component) = (role, component);
        }
        Ok(())
    }
}

/// Returns whether a database is beyond repair.
pub(super) fn is_damage(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
}

/// Returns whether a database may be usable later.
pub(super) fn is_transient(code: ErrorCode) -> bool {
    Guarded::is_storage_error(code) && !is_damage(code)
}

/// Returns a hash of the schema and the events. It tells databases apart whose version is the same though the
/// read model has been changed.
fn fingerprint(model: &ReadModel) -> i32 {
    let layout = LAYOUT.to_le_bytes();
    let mut parts = vec![layout.as_slice(), model.schema.as_bytes()];
    for event in &model.subscribes {
        parts.extend([event.aggregate.as_str().as_bytes(), event.event.as_str().as_bytes()]);
    }
    i32::from_le_bytes(hash_prefix(&parts))
}

fn connect(file: &Path, max_bytes: u64) -> rusqlite::Result<Guarded> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // Transactions that a power cut takes are projected again.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    let guarded = Guarded::new(connection)?;
    guarded.limit_bytes(max_bytes)?;
    Ok(guarded)
}

fn connect_reader(file: &Path) -> rusqlite::Result<Guarded> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Guarded::new(Connection::open_with_flags(file, flags)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::contract::EventRef;
    use crate::projection::database_set::{DatabaseSet, Opened};
    use crate::projection::tables::Progress;

    fn model() -> ReadModel {
        ReadModel {
            version: 1,
            schema: "CREATE TABLE products (id TEXT PRIMARY KEY)".to_owned(),
            subscribes: vec![EventRef { aggregate: "product".into(), event: "product-registered".into() }],
        }
    }

    fn open(dir: &Path, model: &ReadModel) -> Result<(Arc<Database>, Writer), ProjectionsError> {
        let databases = DatabaseSet { dir: dir.to_owned(), service: "inventory".into(), max_bytes: 1 << 30 };
        let Opened { database, writer } = databases.open_live(Digest::of(b""), model)?;
        Ok((database, writer))
    }

    /// Inserts a row in a transaction that is not yet committed.
    fn insert(writer: &Writer, id: &str) {
        tables::begin(&writer.connection).unwrap();
        let insert = |connection: &Connection| connection.execute("INSERT INTO products VALUES (?1)", [id]);
        writer.connection.host(insert).unwrap();
    }

    fn commit(writer: &Writer, position: u64) {
        let mark = LogMark { position: Position::new(position), ..LogMark::START };
        tables::commit(&writer.connection, &Progress::to(mark)).unwrap();
    }

    fn rows(connection: &Guarded) -> u64 {
        let count = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM products", [], |row| row.get(0))
        };
        connection.host(count).unwrap()
    }

    #[test]
    fn a_database_serves_as_long_as_it_fits_the_read_model() {
        let other_schema =
            ReadModel { schema: "CREATE TABLE products (id TEXT PRIMARY KEY, name)".to_owned(), ..model() };
        let other_events = ReadModel { subscribes: Vec::new(), ..model() };
        let other_version = ReadModel { version: 2, ..model() };
        let garbage = |file: &Path| fs::write(file, "no database ".repeat(1_000)).unwrap();
        let empty = |file: &Path| fs::write(file, "").unwrap();
        let untouched = |_: &Path| {};
        type Case<'a> = (&'a str, ReadModel, &'a dyn Fn(&Path), u64);
        let cases: [Case<'_>; 6] = [
            ("the same", model(), &untouched, 7),
            ("another schema", other_schema, &untouched, 0),
            ("other events", other_events, &untouched, 0),
            ("another version", other_version, &untouched, 0),
            ("garbage", model(), &garbage, 0),
            ("an empty file", model(), &empty, 0),
        ];
        for (case, other, change, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let (database, writer) = open(dir.path(), &model()).unwrap();
            insert(&writer, "a");
            commit(&writer, 7);
            let file = database.file.clone();
            drop((database, writer));
            change(&file);
            let (_, writer) = open(dir.path(), &other).unwrap();
            assert_eq!(writer.mark.position.get(), expected, "{case}");
            assert_eq!(rows(&writer.connection), u64::from(expected > 0), "{case}");
        }
    }

    #[test]
    fn rows_and_position_are_committed_together_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (_, writer) = open(dir.path(), &model()).unwrap();
        insert(&writer, "a");
        commit(&writer, 7);
        insert(&writer, "b");
        // The process ends.
        drop(writer);
        let (_, writer) = open(dir.path(), &model()).unwrap();
        assert_eq!((writer.mark.position.get(), rows(&writer.connection)), (7, 1));
    }

    #[test]
    fn a_reader_sees_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (database, writer) = open(dir.path(), &model()).unwrap();
        let (reader, position) = database.begin_read().unwrap();
        insert(&writer, "a");
        commit(&writer, 7);
        assert_eq!((position.get(), rows(&reader)), (0, 0));
        database.end_read(reader);
        // Two events come that the read model does not subscribe to.
        database.advance(Position::new(9), 0);
        let (reader, position) = database.begin_read().unwrap();
        assert_eq!((position.get(), rows(&reader)), (9, 1));
    }

    #[test]
    fn a_reader_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (database, _writer) = open(dir.path(), &model()).unwrap();
        let (reader, _) = database.begin_read().unwrap();
        let insert = |connection: &Connection| connection.execute("INSERT INTO products VALUES ('a')", []);
        let rejected = reader.host(insert).unwrap_err();
        assert_eq!(rejected.sqlite_error_code(), Some(ErrorCode::ReadOnly));
    }

    #[test]
    fn a_schema_that_is_rejected_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        for schema in [
            "CREATE TABLE kontor_mine (a)",
            "COMMIT",
            "CREATE TABLE products (id",
            "DROP TABLE kontor_parked",
        ] {
            let rejected = open(dir.path(), &ReadModel { schema: schema.to_owned(), ..model() });
            assert!(matches!(rejected, Err(ProjectionsError::Schema { .. })), "{schema}");
        }
        assert!(open(dir.path(), &model()).is_ok());
    }
}
