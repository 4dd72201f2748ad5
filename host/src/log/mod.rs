//! The event log: the only truth. Everything else can be deleted and is rebuilt from it.
//!
//! [`EventLog`] is implemented by [`EmbeddedLog`], a file in the data directory, and by [`JetStreamLog`], a
//! stream of NATS that several hosts share. [`Subscription`] follows either of them.

mod commit_hash;
pub(crate) mod derived;
mod embedded;
mod failed_chains;
mod jetstream;
mod problem;
mod readers;
mod snapshots;
mod sql;
mod thread;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_nats::Client;
use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::watch;

use crate::model::{
    AppendChain, Caller, CommandId, Json, LogMark, Meta, NewEvent, Position, Recorded, StreamId, Version,
};

pub use commit_hash::CommitHasher;
pub use embedded::{EmbeddedLog, LogFile, OpenError, Sequence, UpgradeError};
pub use jetstream::{
    JetStreamError, JetStreamLog, JetStreamOptions, MonitoringError, SetupError, SyncPolicy,
};
pub use snapshots::{Snapshot, Snapshots};

/// The largest number of events that one read returns.
pub const MAX_PAGE: usize = 1_000;
/// The bytes of payload after which a page ends, so that a page of large events fits into the memory of an
/// instance. A single event may be larger than the rest.
pub const MAX_PAGE_BYTES: usize = 4 << 20;
/// The largest number of events in a batch, which a read model applies in one transaction. Each transaction
/// writes every page of the indexes that it has changed, so fewer transactions are cheaper. A host that stops
/// loses the work of the batch in progress: some tenths of a second.
pub const MAX_BATCH: usize = 10 * MAX_PAGE;
/// The bytes of payload after which a batch ends with the current page, so that large events do not fill the
/// memory.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// The time for which the answer to a command that recorded no events is kept, unless there are too many.
pub const ANSWERS_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The engines that can hold the events, as the configuration names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogEngine {
    /// A file in the data directory.
    #[default]
    Embedded,
    /// A stream of NATS, for several hosts. The data directory has a copy.
    #[value(name = "jetstream")]
    JetStream,
}

/// The engine of a log, with what is needed to open it.
pub enum LogPlace<'a> {
    /// A file in the data directory.
    Embedded,
    /// A stream of NATS, with a copy in the data directory.
    JetStream {
        /// The connection to the NATS servers.
        client: Client,
        /// The stream, and the settings that are accepted.
        options: &'a JetStreamOptions,
        /// The number of servers that keep the stream.
        replicas: usize,
    },
}

/// The reasons why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// The file in the data directory cannot be opened.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// The stream or its copy cannot be used.
    #[error(transparent)]
    JetStream(#[from] JetStreamError),
}

/// Opens a log, and creates it if it does not exist. `data`: the data directory.
pub async fn open(place: LogPlace<'_>, data: &Path) -> Result<Arc<dyn EventLog>, OpenLogError> {
    match place {
        LogPlace::Embedded => Ok(Arc::new(EmbeddedLog::open(data)?)),
        LogPlace::JetStream { client, options, replicas } => {
            Ok(Arc::new(JetStreamLog::open(client, options, replicas, data).await?))
        }
    }
}

/// New events of one command for one stream.
#[derive(Clone, Debug)]
pub struct Append {
    /// The stream to append to.
    pub stream: StreamId,
    /// The version that the stream must have before the append.
    pub expected: Version,
    /// The events, oldest first. If there are none, the append only confirms the version of the stream, and
    /// must be the only one of its batch.
    pub events: Vec<NewEvent>,
    /// The metadata that all events of the command share.
    pub meta: Arc<Meta>,
    /// The answer to a command without events, which [`EventLog::answer`] finds again. `None`: none is kept.
    pub answer: Option<Json>,
}

impl Append {
    /// Returns an append of the host itself to a stream of its own: one event, for an act of a caller.
    pub(crate) fn of_host(
        stream: StreamId,
        expected: Version,
        event: NewEvent,
        time_ms: u64,
        by: &Caller,
    ) -> Self {
        let command_id = CommandId::new();
        let meta = Meta {
            correlation_id: command_id.shared().into(),
            command: event.name.shared().into(),
            time_ms,
            ..Meta::of(command_id, by)
        };
        Self { stream, expected, events: vec![event], meta: Arc::new(meta), answer: None }
    }

    /// Returns an append that writes nothing and confirms that a stream still has this version.
    pub fn nothing(stream: StreamId, expected: Version) -> Self {
        static NO_META: LazyLock<Arc<Meta>> = LazyLock::new(Arc::default);
        Self { stream, expected, events: Vec::new(), meta: NO_META.clone(), answer: None }
    }

    /// Returns whether there is anything to write.
    pub(crate) fn writes(&self) -> bool {
        !self.events.is_empty() || self.answer.is_some()
    }
}

/// The answer to a command that recorded no events.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptAnswer {
    /// The hash of the command; see [`Meta::fingerprint`].
    pub fingerprint: u64,
    /// The time of the command, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// The answer.
    pub answer: Json,
}

/// The earlier appends that an append builds on. It fails if one of them has failed.
#[derive(Clone, Copy, Debug)]
pub struct Footing {
    /// The chain that the append belongs to: once it has failed, later ones of the chain fail too.
    pub chain: AppendChain,
    /// Another chain, which the append does not belong to and stands on.
    pub stands_on: Option<AppendChain>,
}

impl From<AppendChain> for Footing {
    fn from(chain: AppendChain) -> Self {
        Self { chain, stands_on: None }
    }
}

/// The acknowledgment of a batch that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The position of the batch's last event.
    pub position: Position,
}

/// The reasons why nothing of a batch was appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The stream has another version than expected.
    #[error("stream {stream} is at version {actual}, not {expected}")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// The version that the append expected.
        expected: Version,
        /// The version that the stream has.
        actual: Version,
    },
    /// The stream already has events of the command.
    #[error("command {command} has already been recorded in stream {stream}")]
    Duplicate {
        /// The stream.
        stream: StreamId,
        /// The recorded command.
        command: CommandId,
    },
    /// The log accepts no batch of this size.
    #[error("the events of one command are more than the log takes at once")]
    TooLarge(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// An earlier append of the same chain has failed, so nothing was tried.
    #[error("an earlier append, which this one builds on, has failed")]
    Discarded,
    /// An append of the chain that this one stands on has failed, so nothing was tried.
    #[error("an append of the journal that this one stands on has failed")]
    Unfounded,
    /// Another host has fenced the stream since the append was begun, so nothing was written.
    #[error("another host has decided on stream {stream} since")]
    Fenced {
        /// The stream.
        stream: StreamId,
    },
    /// The queue of waiting appends is full.
    #[error("the log's queue is full")]
    Busy,
    /// The log accepts no appends at the moment, so nothing was tried.
    #[error("the log accepts no appends at the moment")]
    Unavailable,
    /// The log cannot write. It is unknown whether the batch will be found after a restart.
    #[error("the log cannot be written")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl AppendError {
    /// Returns whether nothing was written because other appends came first or failed: the command can be
    /// decided again on the state that they left.
    pub(crate) fn is_overtaken(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Duplicate { .. } | Self::Discarded | Self::Fenced { .. } => true,
            Self::TooLarge(_) | Self::Unfounded | Self::Busy | Self::Unavailable | Self::Failed(_) => false,
        }
    }
}

/// The state of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// True if appends can succeed, as far as is known. Reads work in any case.
    pub takes_appends: bool,
    /// The state of the local copy. `None`: the log itself is local.
    pub copy: Option<CopyState>,
    /// The reason why this host takes no commands until an operator has looked at it, as a sentence without a
    /// full stop. `None`: it takes them, or will by itself.
    pub stopped: Option<Arc<str>>,
    /// The time for which the disk has been at a commit, if that is long.
    pub stalled: Option<Duration>,
}

/// The progress of a local copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// The last message of the stream that the copy has.
    pub sequence: Sequence,
    /// The number of messages that are known to be in the stream and are not in the copy yet.
    pub behind: u64,
}

/// A read failed. The source says why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log cannot be read")]
pub struct ReadError(#[source] pub Arc<dyn std::error::Error + Send + Sync>);

/// The outcome of a batch.
type Outcome = Result<Appended, AppendError>;

/// An append in progress. Resolves once its outcome is on disk. Dropping it does not change the outcome.
pub type Appending = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send>>;

/// A call when a batch is on disk. It must be short, and must not wait.
pub type Committed = Box<dyn FnOnce() + Send>;

/// The interface of a log.
///
/// *Invariants*, checked for every implementation by the conformance suite of the testkit:
///
/// - An acknowledged append survives the loss of the process.
/// - A batch is recorded completely or not at all.
/// - For one caller, versions and positions follow the order of its calls to [`EventLog::append`].
/// - A stream has no gaps.
/// - A command is recorded at most once in a stream.
/// - Once an append of a chain has failed, later ones of the chain fail, and so do those that stand on the
///   chain. On a shared log, an append stands only on failures that are known when it is begun.
/// - Once a position has been reported, all events up to it can be read.
/// - The first answer to a command that recorded no events stays its answer, as long as it is kept.
/// - The hash of each commit covers the commit and the hash of the one before, as [`CommitHasher`] says.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends to one or several streams, all or nothing. The append has its place in the order when this
    /// returns, not when the future is first polled, so a caller may append on top of an unacknowledged
    /// append in the same chain.
    fn append_on(&self, footing: Footing, batch: Vec<Append>) -> Appending {
        self.append_then(footing, batch, None)
    }

    /// Appends like [`EventLog::append_on`], and calls `committed` once the batch is on disk, before the
    /// caller is answered. On a log that is not shared, that is before anybody can read the events too.
    fn append_then(&self, footing: Footing, batch: Vec<Append>, committed: Option<Committed>) -> Appending;

    /// Appends on top of the earlier appends of a chain.
    fn append_in(&self, chain: AppendChain, batch: Vec<Append>) -> Appending {
        self.append_on(chain.into(), batch)
    }

    /// Appends on top of acknowledged appends.
    fn append(&self, batch: Vec<Append>) -> Appending {
        self.append_in(AppendChain::new(), batch)
    }

    /// Confirms the version of a stream, as an append of nothing does, and fences the stream: an append that
    /// another host has begun before, and that has not arrived yet, fails when it does. Only a shared log has
    /// such appends.
    fn fence(&self, chain: AppendChain, stream: StreamId, expected: Version) -> Appending {
        self.append_in(chain, vec![Append::nothing(stream, expected)])
    }

    /// Returns whether other hosts write to the log too. If so, local reads may be behind, which only an
    /// append finds out, and appends to different streams that are in progress together are recorded in any
    /// order: one may be recorded without the other.
    fn is_shared(&self) -> bool {
        false
    }

    /// Returns the state of the log. Cheap enough to call for every command.
    fn state(&self) -> LogState {
        LogState { takes_appends: true, copy: None, stopped: None, stalled: None }
    }

    /// Returns the version of a stream, if that is known without a read. Only a shared log is asked: a host
    /// that writes alone knows what it has written.
    fn known_version(&self, _stream: &StreamId) -> Option<Version> {
        None
    }

    /// Returns up to `limit` events of a stream with a version above `after`, oldest first. A page ends early
    /// after [`MAX_PAGE_BYTES`].
    async fn read(&self, stream: &StreamId, after: Version, limit: usize)
    -> Result<Vec<Recorded>, ReadError>;

    /// Returns the first page of each of some streams, as [`EventLog::read`] does, for the events above a
    /// version. Ends early after [`MAX_PAGE_BYTES`], with the page of at least one.
    async fn read_streams(&self, streams: &[(StreamId, Version)]) -> Result<Vec<Vec<Recorded>>, ReadError> {
        let Some((stream, after)) = streams.first() else { return Ok(Vec::new()) };
        Ok(vec![self.read(stream, *after, MAX_PAGE).await?])
    }

    /// Returns up to `limit` events of all streams with a position above `after`, oldest first. A page ends
    /// early after [`MAX_PAGE_BYTES`].
    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError>;

    /// Returns up to `limit` streams of a kind of aggregate, ordered by name, starting behind `after`, each
    /// with its version.
    async fn streams(
        &self,
        aggregate: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, ReadError>;

    /// Returns the number of streams of a kind of aggregate.
    async fn count_streams(&self, aggregate: &str) -> Result<u64, ReadError>;

    /// Returns the events of a command in a stream. Empty if the command is not recorded there.
    async fn find(&self, stream: &StreamId, command: &CommandId) -> Result<Vec<Recorded>, ReadError>;

    /// Returns the answer that was kept for a command of a stream which recorded no events. Only a bounded
    /// number is kept, for [`ANSWERS_KEPT_FOR`].
    async fn answer(&self, stream: &StreamId, command: &CommandId) -> Result<Option<KeptAnswer>, ReadError>;

    /// Returns up to `limit` events with a position above `after` that record acts of operators and
    /// deployers, oldest first. Reads no others, however many there are. A page ends early after
    /// [`MAX_PAGE_BYTES`].
    async fn acts(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError>;

    /// Returns whether the log has the event of a mark, with the same hash: whether it is the log that the
    /// mark was taken from, up to that event. Every log contains [`LogMark::START`].
    async fn contains(&self, mark: LogMark) -> Result<bool, ReadError> {
        if mark == LogMark::START {
            return Ok(true);
        }
        let found = self.read_all(mark.position.before(1), 1).await?;
        Ok(found.first().is_some_and(|event| event.mark() == mark))
    }

    /// Marks the log as one that is being imported, or removes the mark. A log that has only the beginning of
    /// another one is valid in itself, so only the mark tells them apart.
    async fn mark_importing(&self, _importing: bool) -> Result<(), AppendError> {
        Ok(())
    }

    /// Returns whether the log has the mark of an import that is not complete.
    async fn is_importing(&self) -> Result<bool, ReadError> {
        Ok(false)
    }

    /// Returns the position of the last event on disk, as a channel that signals when it moves.
    fn head(&self) -> watch::Receiver<Position>;
}

/// Returns whether a page that was read with this limit may be followed by more events. A page ends early
/// only with [`MAX_PAGE_BYTES`].
pub(crate) fn more_may_follow(page: &[Recorded], limit: usize) -> bool {
    page.len() >= limit.min(MAX_PAGE) || bytes(page) >= MAX_PAGE_BYTES
}

/// Returns the version of a stream at a position in the log: that of the last event up to there. It takes
/// some reads of one event, however long the stream is.
pub(crate) async fn version_at(
    log: &dyn EventLog,
    stream: &StreamId,
    position: Position,
) -> Result<Version, ReadError> {
    // Steps of growing length up to the first event behind the position, then the middle of what is left.
    let (mut before, mut behind, mut step) = (Version::START, None, 1);
    loop {
        let next = match behind {
            None => before.after(step),
            Some(behind) if before.next() == behind => return Ok(before),
            Some(behind) => before.after(behind.distance_from(before) as usize / 2),
        };
        let event = log.read(stream, next.before(1), 1).await?;
        match event.first() {
            Some(event) if event.position <= position => (before, step) = (next, 2 * step),
            _ => behind = Some(next),
        }
    }
}

/// Returns the bytes of the payloads of some events.
fn bytes(events: &[Recorded]) -> usize {
    events.iter().map(|event| event.payload.as_str().len()).sum()
}

/// All events after a position: first the recorded ones, then new ones as they are appended.
pub struct Subscription {
    log: Arc<dyn EventLog>,
    head: watch::Receiver<Position>,
    after: Position,
    /// The largest number of events to return at a time.
    limit: usize,
    /// Events that were read and have not been returned yet.
    gathered: Vec<Recorded>,
}

impl Subscription {
    /// Creates a subscription that returns up to [`MAX_PAGE`] events at a time.
    pub fn new(log: Arc<dyn EventLog>, after: Position) -> Self {
        let head = log.head();
        Self { log, head, after, limit: MAX_PAGE, gathered: Vec::new() }
    }

    /// Creates a subscription that returns up to [`MAX_BATCH`] events at a time while it is far behind.
    pub fn in_batches(log: Arc<dyn EventLog>, after: Position) -> Self {
        Self { limit: MAX_BATCH, ..Self::new(log, after) }
    }

    /// Returns the next events, at least one. Waits until there are some. `None`: the log is closed.
    /// Cancel-safe: an event that was not returned comes with a later call.
    pub async fn next(&mut self) -> Result<Option<Vec<Recorded>>, ReadError> {
        loop {
            let after = self.after;
            if self.gathered.is_empty() && self.head.wait_for(|head| *head > after).await.is_err() {
                return Ok(None);
            }
            let page = self.log.read_all(after, MAX_PAGE).await?;
            let more = more_may_follow(&page, MAX_PAGE);
            self.after = page.last().map_or(after, |event| event.position);
            self.gathered.extend(page);
            if !more || self.gathered.len() >= self.limit || bytes(&self.gathered) >= MAX_BATCH_BYTES {
                return Ok(Some(std::mem::take(&mut self.gathered)));
            }
        }
    }
}
