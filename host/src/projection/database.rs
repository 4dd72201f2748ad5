//! The file of a read model. It can be deleted at any time, and is when anything is wrong with it: it is then filled again
//! from the first event on.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Notify;

use super::tables;
use crate::manifest::ReadModel;
use crate::model::{Position, StreamId, hash_prefix};
use crate::runtime::Guarded;

/// Raised with every change of the host's tables.
const LAYOUT: u32 = 1;

/// Connections kept for the next queries. Each has a page cache of up to 2 MB and its prepared statements.
const MAX_IDLE: usize = 8;

/// Why a read model cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionsError {
    #[error("SQLite does not take the schema of {service}'s read model")]
    Schema { service: Arc<str>, source: rusqlite::Error },
    #[error("the read database {} cannot be used", file.display())]
    Database { file: PathBuf, source: rusqlite::Error },
    #[error("the directory {} cannot be used for read databases", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
}

/// Where the read databases of a data directory are.
pub(super) fn directory(data: &Path) -> Result<PathBuf, ProjectionsError> {
    let dir = data.join("read");
    match fs::create_dir_all(&dir) {
        Ok(()) => Ok(dir),
        Err(source) => Err(ProjectionsError::Directory { dir, source }),
    }
}

/// One version of a service's read model, as queries see it.
pub(crate) struct Database {
    file: PathBuf,
    fingerprint: i32,
    /// Everything up to here is applied. The file may say less: events that concern nobody are not worth a transaction.
    position: AtomicU64,
    damaged: Notify,
    idle: Mutex<Vec<Guarded>>,
}

/// The connection that fills a database, and how far it is.
pub(super) struct Writer {
    pub(super) connection: Guarded,
    pub(super) position: Position,
    pub(super) parked: HashSet<StreamId>,
}

impl Database {
    /// Opens the database of a read model, or makes it. One that was made by another schema, is damaged, or is ahead of the
    /// log's `head` is made anew.
    pub(super) fn open(
        dir: &Path,
        service: &Arc<str>,
        model: &ReadModel,
        head: Position,
    ) -> Result<(Self, Writer), ProjectionsError> {
        let file = dir.join(format!("{service}-v{}.db", model.version));
        let fingerprint = fingerprint(model);
        let writer = match Writer::existing(&file, fingerprint, head) {
            Ok(Some(writer)) => writer,
            unusable => {
                if file.exists() {
                    let error = unusable.err().map(tracing::field::display);
                    tracing::warn!(%service, file = %file.display(), error, "building the read database anew");
                }
                remove(&file)
                    .map_err(|source| ProjectionsError::Directory { dir: dir.to_owned(), source })?;
                Writer::new(&file, fingerprint, service, model)?
            }
        };
        let database = Self {
            file,
            fingerprint,
            position: AtomicU64::new(writer.position),
            damaged: Notify::new(),
            idle: Mutex::default(),
        };
        Ok((database, writer))
    }

    /// Whether this is the database of that read model.
    pub(super) fn is_of(&self, model: &ReadModel) -> bool {
        self.fingerprint == fingerprint(model)
    }

    /// Another connection to fill it, in place of one that was lost in a call.
    pub(super) fn writer(&self) -> rusqlite::Result<Guarded> {
        connect(&self.file)
    }

    pub(super) fn position(&self) -> Position {
        self.position.load(Ordering::Acquire)
    }

    /// To be called when everything up to there is committed.
    pub(super) fn advance(&self, position: Position) {
        self.position.store(position, Ordering::Release);
    }

    /// Resolves when a query has come upon damage.
    pub(super) async fn damaged(&self) {
        self.damaged.notified().await;
    }

    /// A connection that reads, in a transaction, and the position that everything read in it reflects.
    pub(crate) fn begin_read(&self) -> rusqlite::Result<(Guarded, Position)> {
        // Before the transaction: what is applied by now, it will see.
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

    /// Takes a connection back.
    pub(crate) fn end_read(&self, reader: Guarded) {
        self.report(reader.trouble());
        // A connection that was in trouble, or that cannot end its transaction, is not lent again.
        let ended = reader.trouble().is_none() && tables::roll_back(&reader).is_ok();
        let mut idle = self.idle();
        if ended && idle.len() < MAX_IDLE {
            idle.push(reader);
        }
    }

    fn report(&self, trouble: Option<ErrorCode>) {
        if trouble.is_some_and(is_damage) {
            self.damaged.notify_one();
        }
    }

    /// Makes sure that the next opening makes it anew.
    pub(super) fn discard(&self) -> io::Result<()> {
        remove(&self.file)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Guarded>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// None if the file is not there, or not that of the read model and the log.
    fn existing(file: &Path, fingerprint: i32, head: Position) -> rusqlite::Result<Option<Self>> {
        if !file.exists() {
            return Ok(None);
        }
        let connection = connect(file)?;
        let found = connection.host(|connection| -> rusqlite::Result<_> {
            let found: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if found != fingerprint {
                return Ok(None);
            }
            Ok(Some((tables::position(connection)?, tables::parked(connection)?)))
        })?;
        Ok(found.filter(|(position, _)| *position <= head).map(|(position, parked)| Self {
            connection,
            position,
            parked,
        }))
    }

    fn new(
        file: &Path,
        fingerprint: i32,
        service: &Arc<str>,
        model: &ReadModel,
    ) -> Result<Self, ProjectionsError> {
        let failed = |source| ProjectionsError::Database { file: file.to_owned(), source };
        let connection = connect(file).map_err(failed)?;
        let begin = |connection: &Connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            connection.execute_batch(tables::SCHEMA)
        };
        connection.host(begin).map_err(failed)?;
        connection
            .make_schema(&model.schema)
            .map_err(|source| ProjectionsError::Schema { service: service.clone(), source })?;
        let commit = |connection: &Connection| {
            connection.pragma_update(None, "user_version", fingerprint)?;
            connection.execute_batch("COMMIT")
        };
        connection.host(commit).map_err(failed)?;
        Ok(Self { connection, position: 0, parked: HashSet::new() })
    }
}

/// Whether a database is beyond repair.
pub(super) fn is_damage(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
}

/// Tells databases of one version apart whose schema or events were changed all the same.
fn fingerprint(model: &ReadModel) -> i32 {
    let layout = LAYOUT.to_le_bytes();
    let mut parts = vec![layout.as_slice(), model.schema.as_bytes()];
    for event in &model.subscribes {
        parts.extend([event.aggregate.as_bytes(), event.event.as_bytes()]);
    }
    i32::from_le_bytes(hash_prefix(&parts))
}

fn connect(file: &Path) -> rusqlite::Result<Guarded> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // What a power cut takes is projected again.
    connection.pragma_update(None, "synchronous", "normal")?;
    Guarded::new(connection)
}

fn connect_reader(file: &Path) -> rusqlite::Result<Guarded> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Guarded::new(Connection::open_with_flags(file, flags)?)
}

fn remove(file: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
