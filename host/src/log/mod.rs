//! The event log: the only truth. Everything else can be deleted and is rebuilt from it.

mod embedded;
mod jetstream;
mod problem;
mod readers;
mod snapshots;
mod sql;
mod thread;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Client;
use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::watch;

use crate::model::{CommandId, Meta, NewEvent, Position, Recorded, StreamId, Version};

pub use embedded::{EmbeddedLog, LogFile, OpenError, Sequence};
pub use jetstream::{JetStreamError, JetStreamLog, JetStreamOptions, SetupError, SyncPolicy};
pub use snapshots::{Snapshot, Snapshots};

/// The most events that one read brings.
pub const MAX_PAGE: usize = 1_000;
/// The most events of a batch, which a read model applies in one transaction: each transaction writes every page of the
/// indexes that it has changed, so fewer are cheaper. A host that stops undoes some tenths of a second's work.
pub const MAX_BATCH: usize = 10 * MAX_PAGE;
/// Bytes of payload after which a batch ends with a page, so that large events do not fill the memory.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// Where the events are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogEngine {
    /// In the data directory.
    #[default]
    Embedded,
    /// In a stream of NATS, for several hosts; the data directory has a copy.
    #[value(name = "jetstream")]
    JetStream,
}

/// Where a log is opened.
pub enum LogPlace<'a> {
    /// In the data directory.
    Embedded,
    /// In a stream of NATS, with a copy in the data directory.
    JetStream { client: Client, options: &'a JetStreamOptions, replicas: usize },
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    #[error(transparent)]
    Embedded(#[from] OpenError),
    #[error(transparent)]
    JetStream(#[from] JetStreamError),
}

/// Opens a log. `data`: the data directory.
pub async fn open(place: LogPlace<'_>, data: &Path) -> Result<Arc<dyn EventLog>, OpenLogError> {
    match place {
        LogPlace::Embedded => Ok(Arc::new(EmbeddedLog::open(data)?)),
        LogPlace::JetStream { client, options, replicas } => {
            Ok(Arc::new(JetStreamLog::open(client, options, replicas, data).await?))
        }
    }
}

/// New events for one stream, all of one command.
#[derive(Clone, Debug)]
pub struct Append {
    pub stream: StreamId,
    /// The version the stream must have before.
    pub expected: Version,
    /// None: nothing is written, and the append stands for the question whether the stream has that version still. Only
    /// alone in its batch.
    pub events: Vec<NewEvent>,
    pub meta: Arc<Meta>,
}

impl Append {
    /// The question whether a stream has a version still.
    pub fn nothing(stream: StreamId, expected: Version) -> Self {
        Self { stream, expected, events: Vec::new(), meta: Arc::default() }
    }
}

/// Appends that build on one another before they are acknowledged: once one has failed, those after it fail as well, even
/// if the version that they expect has come about in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendChain(u64);

impl AppendChain {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for AppendChain {
    fn default() -> Self {
        Self::new()
    }
}

/// What an append did, once it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The position of the batch's last event.
    pub position: Position,
}

/// Why nothing of a batch was appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The stream has another version than expected.
    #[error("stream {stream} is at version {actual}, not {expected}")]
    Conflict { stream: StreamId, expected: Version, actual: Version },
    /// The stream already has events of that command.
    #[error("command {command} has already been recorded in stream {stream}")]
    Duplicate { stream: StreamId, command: CommandId },
    /// The log takes no commit of that size.
    #[error("the events of one command are more than the log takes at once: {0}")]
    TooLarge(String),
    /// More appends are waiting than the log takes.
    #[error("the log's queue is full")]
    Busy,
    /// The log takes nothing at the moment, so nothing was tried.
    #[error("the log takes nothing at the moment")]
    Unavailable,
    /// The log cannot write. Whether the batch will be found after a restart is not known.
    #[error("the log cannot be written")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// How a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Whether an append has a chance, as far as is known. Reads go on in any case.
    pub takes_appends: bool,
    /// Of one that is elsewhere, and read in a copy.
    pub copy: Option<CopyState>,
}

/// How a copy stands to its original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// The last message of the original that the copy has.
    pub sequence: Sequence,
    /// Messages that are known to be in the original, and not in the copy yet.
    pub behind: u64,
}

/// Why nothing could be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log cannot be read")]
pub struct ReadError(#[source] pub Arc<dyn std::error::Error + Send + Sync>);

/// An append under way. Resolves once its fate is on disk; dropping it changes nothing about that fate.
pub type Appending = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send>>;

/// The log as everything else sees it.
///
/// Invariants, checked for every implementation by the conformance suite: an acknowledged append survives the loss of the
/// process; a batch is there whole or not at all; a stream's versions and the log's positions have no order but the order
/// of the calls to [`EventLog::append`] as far as one caller can tell; a stream has no gaps; a command is recorded at
/// most once in a stream; whoever has been told of a position can read all events up to it.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends to one or several streams, all or nothing. The place in the order is taken when this returns, not when the
    /// future is first polled, so a caller may append on top of what it has not seen acknowledged, in the same chain.
    fn append_in(&self, chain: AppendChain, batch: Vec<Append>) -> Appending;

    /// Appends on top of what has been acknowledged.
    fn append(&self, batch: Vec<Append>) -> Appending {
        self.append_in(AppendChain::new(), batch)
    }

    /// Whether others write to it too. Then what can be read here may be behind, which only an append finds out; and of
    /// appends to several streams that are under way at once, any may come first, or alone.
    fn is_shared(&self) -> bool {
        false
    }

    /// How it stands. Cheap to ask, for every command.
    fn state(&self) -> LogState {
        LogState { takes_appends: true, copy: None }
    }

    /// Up to `limit` events of a stream with a version above `after`, oldest first.
    async fn read(&self, stream: &StreamId, after: Version, limit: usize)
    -> Result<Vec<Recorded>, ReadError>;

    /// Up to `limit` events of all streams with a position above `after`, oldest first.
    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError>;

    /// Up to `limit` streams of an aggregate, behind `after` in the order of their names.
    async fn streams(
        &self,
        aggregate: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamId>, ReadError>;

    /// The events that a command left in a stream; empty if it is not recorded there.
    async fn find(&self, stream: &StreamId, command: &CommandId) -> Result<Vec<Recorded>, ReadError>;

    /// The position of the last event on disk, and a signal when it moves.
    fn head(&self) -> watch::Receiver<Position>;
}

/// All events after a position: first the recorded ones, then the new ones as they come.
pub struct Subscription {
    log: Arc<dyn EventLog>,
    head: watch::Receiver<Position>,
    after: Position,
    /// How many events are returned at most.
    limit: usize,
    /// Read, but not returned yet.
    gathered: Vec<Recorded>,
}

impl Subscription {
    /// Brings a page of at most [`MAX_PAGE`] events at a time.
    pub fn new(log: Arc<dyn EventLog>, after: Position) -> Self {
        let head = log.head();
        Self { log, head, after, limit: MAX_PAGE, gathered: Vec::new() }
    }

    /// Brings up to [`MAX_BATCH`] events at a time while it is far behind.
    pub fn in_batches(log: Arc<dyn EventLog>, after: Position) -> Self {
        Self { limit: MAX_BATCH, ..Self::new(log, after) }
    }

    /// The next events, at least one. Waits until there are some. None when the log is closed. Cancel-safe: an event not
    /// returned comes with a later call.
    pub async fn next(&mut self) -> Result<Option<Vec<Recorded>>, ReadError> {
        loop {
            let after = self.after;
            if self.gathered.is_empty() && self.head.wait_for(|head| *head > after).await.is_err() {
                return Ok(None);
            }
            let page = self.log.read_all(after, MAX_PAGE).await?;
            let more = page.len() == MAX_PAGE;
            self.after = page.last().map_or(after, |event| event.position);
            self.gathered.extend(page);
            if !more || self.gathered.len() >= self.limit || self.gathered_bytes() >= MAX_BATCH_BYTES {
                return Ok(Some(std::mem::take(&mut self.gathered)));
            }
        }
    }

    fn gathered_bytes(&self) -> usize {
        self.gathered.iter().map(|event| event.payload.as_str().len()).sum()
    }
}
