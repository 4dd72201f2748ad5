//! The event log in one SQLite file, which any tool for SQLite can read.
//!
//! One thread, the writer, owns the only connection that adds events. It commits all waiting appends in one
//! transaction, syncs, and only then replies: one sync serves many appends. A second thread does the
//! checkpoints, so that no commit waits for one. Readers have connections of their own and see each commit
//! completely as soon as it is made.

mod answers;
mod checkpoint;
mod commit_watch;
mod copy;
mod file;
mod importing;
mod known;
mod message;
mod meta;
mod read;
mod schema;
mod tail;
mod upgrade;
mod versions;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::future::ready;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;

use self::answers::Answered;
use self::commit_watch::CommitWatch;
use self::known::{KnownStreams, Loader};
use self::schema::Durability;
use self::tail::Tail;
use self::versions::Versions;
use self::writer::{Request, Signals, Writer};
use super::readers::Readers;
use super::thread::Joined;
use super::{
    Append, AppendError, Appending, Committed, EventLog, Footing, KeptAnswer, LogState, MAX_PAGE, ReadError,
};
use crate::model::{CommandId, LogMark, Position, Recorded, StreamId, Version};

pub(super) use self::copy::LocalCopy;
pub use self::copy::Sequence;
pub use self::file::LogFile;
pub(super) use self::message::{CopiedMessage, Unit};
pub use self::schema::OpenError;
pub use self::upgrade::UpgradeError;

/// The largest number of waiting appends: four full groups, about a tenth of a second of work on an ordinary
/// disk. Beyond it a caller gets an error at once, which is better than a late answer.
const QUEUE: usize = 4_096;

/// The time of a commit after which no more commands are begun: they would wait for it as well.
const HANGS: Duration = Duration::from_secs(5);

/// The log of one process in one directory. Dropping it closes it once all queued appends are on disk.
pub struct EmbeddedLog {
    // The order matters: dropping the queue ends the writer, which ends the checkpointer; then the directory
    // is unlocked.
    queue: SyncSender<Request>,
    tail: Arc<Tail>,
    position: watch::Receiver<Position>,
    /// True if the last commit was written.
    writable: Arc<AtomicBool>,
    commits: Arc<CommitWatch>,
    readers: Readers,
    answered: Arc<Answered>,
    known: Arc<KnownStreams>,
    /// Those of a copy.
    versions: Option<Arc<Versions>>,
    _writer: Joined,
    _checkpointer: Joined,
    _loader: Loader,
    _lock: File,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, and creates both if they do not exist. Fails if another log is open in the
    /// directory.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let (log, _) = Self::open_as(dir, Durability::EveryCommit, copy::refuse)?;
        Ok(log)
    }

    /// Opens the log once `identify` accepts its database. Returns the sequence from `identify`, as a
    /// channel.
    fn open_as(
        dir: &Path,
        durability: Durability,
        identify: impl FnOnce(&Path, &Connection) -> Result<Sequence, OpenError>,
    ) -> Result<(Self, watch::Receiver<Sequence>), OpenError> {
        let unusable = |source: io::Error| OpenError::Directory { dir: dir.to_owned(), source };
        schema::make_directory(dir).map_err(unusable)?;
        let lock = schema::lock(dir)?;
        let (file, connection) = schema::open(dir, durability)?;
        let failed = |source| OpenError::Database { file: file.clone(), source };
        let (copied_sender, copied) = watch::channel(identify(dir, &connection)?);
        let checkpoints = schema::connect(&file, durability).map_err(failed)?;
        let (position_sender, position) = watch::channel(last_position(&connection).map_err(failed)?);

        // One waiting signal is enough: it says that something was committed.
        let (checkpoint_signal, committed) = sync_channel(1);
        let (queue, requests) = sync_channel(QUEUE);
        let tail = Arc::new(Tail::default());
        let writable = Arc::new(AtomicBool::new(true));
        let commits = Arc::new(CommitWatch::default());
        let answered = Arc::new(Answered::load(&connection).map_err(failed)?);
        let known = Arc::<KnownStreams>::default();
        let is_copy = connection.table_exists(None, copy::TABLE).map_err(failed)?;
        let versions = is_copy.then(Arc::<Versions>::default);
        let signals = Signals {
            versions: versions.clone(),
            position: position_sender,
            copied: copied_sender,
            writable: writable.clone(),
            commits: commits.clone(),
            checkpointer: checkpoint_signal,
        };
        let indexes = (answered.clone(), known.clone());
        let writer = Writer::new(connection, tail.clone(), indexes, signals);
        let _checkpointer =
            Joined::spawn("log-checkpoint", move || checkpoint::run(&checkpoints, &committed))
                .map_err(unusable)?;
        let _writer = Joined::spawn("log-writer", move || writer.run(&requests)).map_err(unusable)?;
        let _loader = Loader::spawn(known.clone(), file.clone()).map_err(unusable)?;
        let readers = Readers::new(file);
        let log = Self {
            queue,
            tail,
            position,
            writable,
            commits,
            readers,
            answered,
            known,
            versions,
            _writer,
            _checkpointer,
            _loader,
            _lock: lock,
        };
        Ok((log, copied))
    }

    /// Returns the mark of the newest event. `None`: none was written since the log was opened.
    pub(super) fn newest(&self) -> Option<LogMark> {
        self.tail.newest()
    }

    /// Queues a request for the writer.
    fn enqueue(&self, request: Request) -> Result<(), AppendError> {
        self.queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => AppendError::Busy,
            TrySendError::Disconnected(_) => WriterGone::error(),
        })
    }
}

/// The writer has panicked. The host's own log has the panic.
#[derive(Debug, thiserror::Error)]
#[error("the log's writer is gone")]
struct WriterGone;

impl WriterGone {
    fn error() -> AppendError {
        AppendError::Failed(Arc::new(Self))
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn append_then(&self, footing: Footing, batch: Vec<Append>, committed: Option<Committed>) -> Appending {
        let (reply, outcome) = oneshot::channel();
        let metas = meta::write_all(&batch).map_err(|error| AppendError::Failed(Arc::new(error)));
        let queued =
            metas.and_then(|metas| self.enqueue(Request::Batch { footing, batch, metas, committed, reply }));
        match queued {
            Ok(()) => Box::pin(async { outcome.await.unwrap_or_else(|_| Err(WriterGone::error())) }),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn state(&self) -> LogState {
        let stalled = self.commits.stalled();
        let hangs = stalled.is_some_and(|time| time >= HANGS);
        let takes_appends = self.writable.load(Ordering::Acquire) && !hangs;
        LogState { takes_appends, copy: None, stopped: None, stalled }
    }

    async fn read(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        if !self.known.may_have(stream) {
            return Ok(Vec::new());
        }
        let stream = stream.clone();
        let limit = limit.min(MAX_PAGE);
        Ok(self.readers.run(move |connection| read::stream(connection, &stream, after, limit)).await?)
    }

    async fn read_streams(&self, streams: &[(StreamId, Version)]) -> Result<Vec<Vec<Recorded>>, ReadError> {
        let streams = streams.to_vec();
        Ok(self.readers.run(move |connection| read::streams_after(connection, &streams)).await?)
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        let limit = limit.min(MAX_PAGE);
        if let Some(events) = self.tail.after(after, limit) {
            return Ok(events);
        }
        Ok(self.readers.run(move |connection| read::all(connection, after, limit)).await?)
    }

    async fn streams(
        &self,
        aggregate: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, ReadError> {
        let (aggregate, after) = (aggregate.to_owned(), after.cloned());
        let list =
            move |connection: &Connection| read::streams(connection, &aggregate, after.as_ref(), limit);
        Ok(self.readers.run(list).await?)
    }

    async fn count_streams(&self, aggregate: &str) -> Result<u64, ReadError> {
        let aggregate = aggregate.to_owned();
        Ok(self.readers.run(move |connection| read::count_streams(connection, &aggregate)).await?)
    }

    async fn find(&self, stream: &StreamId, command: &CommandId) -> Result<Vec<Recorded>, ReadError> {
        if !self.known.may_have(stream) {
            return Ok(Vec::new());
        }
        let (stream, command) = (stream.clone(), command.clone());
        Ok(self.readers.run(move |connection| read::command(connection, &stream, &command)).await?)
    }

    async fn answer(&self, stream: &StreamId, command: &CommandId) -> Result<Option<KeptAnswer>, ReadError> {
        if !self.answered.may_have(stream, command) {
            return Ok(None);
        }
        let (stream, command) = (stream.clone(), command.clone());
        Ok(self.readers.run(move |connection| answers::find(connection, &stream, &command)).await?)
    }

    async fn acts(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        let limit = limit.min(MAX_PAGE);
        Ok(self.readers.run(move |connection| read::acts(connection, after, limit)).await?)
    }

    async fn mark_importing(&self, importing: bool) -> Result<(), AppendError> {
        let file = self.readers.file().to_owned();
        let marked = spawn_blocking(move || {
            let connection = schema::connect(&file, Durability::EveryCommit)?;
            importing::mark(&connection, importing)
        });
        let marked = marked.await.map_err(|error| AppendError::Failed(Arc::new(error)))?;
        marked.map_err(|error| AppendError::Failed(Arc::new(error)))
    }

    async fn is_importing(&self) -> Result<bool, ReadError> {
        Ok(self.readers.run(|connection| Ok(importing::is_marked(connection)?)).await?)
    }

    fn known_version(&self, stream: &StreamId) -> Option<Version> {
        self.versions.as_ref()?.get(stream)
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }
}

/// Returns the position of the last event on disk.
fn last_position(connection: &Connection) -> rusqlite::Result<Position> {
    connection
        .prepare_cached("SELECT coalesce(max(position), 0) FROM events")?
        .query_row([], |row| row.get(0))
}

/// Returns the mark of the last event on disk.
fn last_mark(connection: &Connection) -> rusqlite::Result<LogMark> {
    let mut statement = connection.prepare_cached(
        "SELECT last.position, first.hash
        FROM events AS last LEFT JOIN events AS first
            ON first.position = last.position - last.command_index AND first.command_index = 0
        ORDER BY last.position DESC LIMIT 1",
    )?;
    let mark =
        statement.query_row([], |row| Ok(LogMark { position: row.get(0)?, hash: row.get(1)? })).optional()?;
    Ok(mark.unwrap_or_default())
}
