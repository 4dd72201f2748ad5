//! The embedded log as a local copy of a JetStream stream. The copy holds only acknowledged messages of the
//! stream, so its own commits need no sync: after a power cut it is some commits behind and gets them again.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{oneshot, watch};

use super::schema::{self, Durability};
use super::writer::Request;
use super::{CopiedMessage, EmbeddedLog, OpenError, WriterGone, last_position, read};
use crate::log::{AppendError, Outcome, ReadError};
use crate::model::{Position, StreamId, Version, place};

place! {
    /// The place of a message in the stream, from 1.
    Sequence
}

/// The messages before were not copied.
#[derive(Debug, thiserror::Error)]
#[error("the copy ends at message {copied}, and message {wanted} does not follow it")]
pub(super) struct OutOfOrder {
    pub(super) copied: Sequence,
    /// The first message of the batch.
    pub(super) wanted: Sequence,
}

/// The table that a copy has and no other log.
pub(super) const TABLE: &str = "copied";

const SCHEMA: &str = "CREATE TABLE copied (source TEXT NOT NULL, sequence INTEGER NOT NULL) STRICT";

/// A local copy. Only [`LocalCopy::apply`] writes to it.
pub(crate) struct LocalCopy {
    log: EmbeddedLog,
    sequence: watch::Receiver<Sequence>,
}

impl LocalCopy {
    /// Opens the copy of the stream `source` in `dir`, and creates the directory and the copy if they do not
    /// exist.
    pub(crate) fn open(dir: &Path, source: &str) -> Result<Self, OpenError> {
        let identify = |dir: &Path, connection: &Connection| identify(dir, connection, source);
        let (log, sequence) = EmbeddedLog::open_as(dir, Durability::EveryCheckpoint, identify)?;
        Ok(Self { log, sequence })
    }

    /// Returns the log, for reading.
    pub(crate) fn log(&self) -> &EmbeddedLog {
        &self.log
    }

    /// Applies a message. Returns the outcome of each of its units; one that does not fit to the log, or that
    /// repeats a command, is left out. Fails with [`OutOfOrder`] if the messages before are not copied: once
    /// a commit of the copy has failed, all fails until the caller has begun again behind what is copied.
    pub(crate) fn apply(
        &self,
        message: CopiedMessage,
    ) -> impl Future<Output = Result<Vec<Outcome>, AppendError>> + use<> {
        let (reply, outcomes) = oneshot::channel();
        let queued = self.log.enqueue(Request::Message { message, reply });
        async {
            queued?;
            outcomes.await.unwrap_or_else(|_| Err(WriterGone::error()))
        }
    }

    /// Returns the last copied message, as a channel that signals when it moves.
    pub(crate) fn sequence(&self) -> watch::Receiver<Sequence> {
        self.sequence.clone()
    }

    /// Returns the version of an event stream.
    pub(crate) async fn version(&self, stream: &StreamId) -> Result<Version, ReadError> {
        let stream = stream.clone();
        Ok(self.log.readers.run(move |connection| read::version(connection, &stream)).await?)
    }
}

/// Records that all messages up to `sequence` are copied.
pub(super) fn remember(connection: &Connection, sequence: Sequence) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE copied SET sequence = ?1")?.execute([sequence]).map(drop)
}

/// Fails if the database is a copy. For a log that is none.
pub(super) fn refuse(dir: &Path, connection: &Connection) -> Result<Sequence, OpenError> {
    match copied(connection) {
        Ok(None) => Ok(Sequence::START),
        Ok(Some((source_name, _))) => Err(OpenError::Copy { dir: dir.to_owned(), source_name }),
        Err(source) => Err(unreadable(dir, source)),
    }
}

/// Returns the last copied message of `source`. A new database becomes a copy; any other one is an error.
fn identify(dir: &Path, connection: &Connection, source: &str) -> Result<Sequence, OpenError> {
    let failed = |source| unreadable(dir, source);
    let other = |holds: String| OpenError::NotACopy { dir: dir.to_owned(), holds, wanted: source.to_owned() };
    match copied(connection).map_err(failed)? {
        Some((copied, sequence)) if copied == source => Ok(sequence),
        Some((copied, _)) => Err(other(format!("a copy of {copied}"))),
        None if last_position(connection).map_err(failed)? > Position::START => {
            Err(other("a log of its own".to_owned()))
        }
        None => {
            let transaction = connection.unchecked_transaction().map_err(failed)?;
            transaction.execute_batch(SCHEMA).map_err(failed)?;
            transaction.execute("INSERT INTO copied VALUES (?1, 0)", params![source]).map_err(failed)?;
            transaction.commit().map_err(failed)?;
            Ok(Sequence::START)
        }
    }
}

/// Returns the source and the last message of a copy. `None`: the database is no copy.
fn copied(connection: &Connection) -> rusqlite::Result<Option<(String, Sequence)>> {
    if !connection.table_exists(None, TABLE)? {
        return Ok(None);
    }
    let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    connection.query_row("SELECT source, sequence FROM copied", [], columns).optional()
}

fn unreadable(dir: &Path, source: rusqlite::Error) -> OpenError {
    OpenError::Database { file: schema::file(dir), source }
}
