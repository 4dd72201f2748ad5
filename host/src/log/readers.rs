//! Read-only connections to one SQLite file, used off the async threads.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use super::ReadError;

/// The number of concurrent reads. More would wait for the same disk, and each connection keeps a page cache
/// of 2 MB.
const MAX_READERS: usize = 32;

/// The reasons why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("the database refused the read")]
    Database(#[from] rusqlite::Error),
    #[error("{what} is damaged")]
    Damaged {
        /// The damaged part.
        what: String,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the read was interrupted")]
    BrokenOff(#[from] JoinError),
}

impl ReadError {
    /// Returns the error of a read that found this damaged.
    #[cfg(test)]
    pub(crate) fn damage(what: &str) -> Self {
        Unreadable::Damaged { what: what.to_owned(), source: "it is no JSON".into() }.into()
    }

    /// Returns true if what is stored is damaged: it cannot be read at another time either.
    pub fn is_damage(&self) -> bool {
        match self.0.downcast_ref() {
            Some(Unreadable::Damaged { .. }) => true,
            Some(Unreadable::Database(error)) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
            }
            Some(Unreadable::BrokenOff(_)) | None => false,
        }
    }
}

impl From<Unreadable> for ReadError {
    fn from(error: Unreadable) -> Self {
        Self(Arc::new(error))
    }
}

/// A pool of connections, which are opened when they are needed.
pub(super) struct Readers {
    pool: Arc<Pool>,
    permits: Arc<Semaphore>,
}

struct Pool {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Creates a pool for a file that exists and has a write-ahead log.
    pub(super) fn new(file: PathBuf) -> Self {
        let pool = Pool { file, idle: Mutex::default() };
        Self { pool: Arc::new(pool), permits: Arc::new(Semaphore::new(MAX_READERS)) }
    }

    /// Returns the file.
    pub(super) fn file(&self) -> &Path {
        &self.pool.file
    }

    /// Runs `work` on a connection of the pool. The work is completed even if the caller stops waiting.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Unreadable> + Send + 'static,
    ) -> Result<T, Unreadable> {
        // None: impossible, because nobody closes this semaphore.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let pool = Arc::clone(&self.pool);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = pool.take()?;
            let answer = work(&connection)?;
            // Only a connection that has just worked is returned to the pool.
            pool.idle().push(connection);
            Ok(answer)
        })
        .await?
    }
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> rusqlite::Result<Connection> {
        let pooled = self.idle().pop();
        pooled.map_or_else(|| connect(&self.file), Ok)
    }
}

/// Opens a connection that cannot write.
pub(super) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    // Without this, SQLite compiles a prepared statement again for every new value, in search of a better
    // plan: half the cost of a short read.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}
