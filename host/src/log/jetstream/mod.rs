//! The event log in a JetStream stream, for several hosts. Every host has a complete copy of the log in the
//! embedded engine, and reads only from it. Appends are published on the condition that their event stream
//! still ends where the copy says, and are acknowledged once they have arrived in the copy. If the event
//! stream has a later end, the append is a conflict, which is reported only once the copy contains the
//! winning events.
//!
//! - `stream_queues`: the order in which appends are published.
//! - `publish`: publishes them.
//! - `follow`: copies the stream.
//! - `pending_appends`: passes outcomes from the copy to the publisher.
//! - `leader_probe`: finds out whether the stream accepts appends.
//! - `setup`: creates the stream, and checks that it is safe.
//! - `wire`: the messages.

mod follow;
mod leader_probe;
mod pending_appends;
mod publish;
mod setup;
mod stream_queues;
mod wire;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

use self::follow::Follower;
use self::leader_probe::LeaderProbe;
use self::pending_appends::PendingAppends;
use self::publish::Publisher;
use self::stream_queues::{Request, StreamQueues};
use super::embedded::{LocalCopy, OpenError, Sequence};
use super::thread::Joined;
use super::{Append, AppendChain, AppendError, Appending, CopyState, EventLog, LogState, ReadError};
use crate::model::{CommandId, Position, Recorded, StreamId, Version};

pub use self::setup::{JetStreamOptions, MonitoringError, SetupError, SyncPolicy};

/// The interval at which the progress of a long copy is logged.
const PROGRESS: Duration = Duration::from_secs(5);

/// The reasons why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JetStreamError {
    /// The servers or the stream are not safe, or do not answer.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The local copy cannot be opened.
    #[error(transparent)]
    Copy(#[from] OpenError),
    /// The system refuses a thread.
    #[error("no thread can be started to follow the stream")]
    Thread(#[from] io::Error),
}

/// The log of one host among several. Dropping it closes it, once all received messages are in the copy.
pub struct JetStreamLog {
    // The order matters: dropping the first ends the tasks in the background; once these and the publisher
    // are dropped, the copy is closed.
    _stop: watch::Sender<()>,
    _follower: Joined,
    publisher: Arc<Publisher>,
    copy: Arc<LocalCopy>,
    /// True while the stream accepts appends.
    available: watch::Receiver<bool>,
}

impl JetStreamLog {
    /// Opens the stream and its copy in `dir`. Creates the stream with this number of `replicas` if it does
    /// not exist. Returns once the copy has all messages that were in the stream at the call.
    pub async fn open(
        client: Client,
        options: &JetStreamOptions,
        replicas: usize,
        dir: &Path,
    ) -> Result<Self, JetStreamError> {
        let info = setup::prepare(&client, options, replicas).await?;
        let name = options.stream.clone();
        let copy = Arc::new(LocalCopy::open(dir, &setup::identity(&info))?);
        let (copy_ends, stream_ends) = (*copy.sequence().borrow(), Sequence::new(info.state.last_sequence));
        if copy_ends > stream_ends {
            return Err(SetupError::Shortened { stream: name, stream_ends, copy_ends }.into());
        }
        let pending = Arc::new(PendingAppends::new(copy_ends));
        let follower = Follower {
            client: client.clone(),
            name: name.clone(),
            copy: copy.clone(),
            pending: pending.clone(),
        };
        let (available_sender, available) = watch::channel(true);
        let probe = LeaderProbe {
            client: client.clone(),
            name: name.clone(),
            pending: pending.clone(),
            available: available_sender,
        };
        let (stop, stopped) = watch::channel(());
        tokio::spawn(probe.run(stopped.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let follower = Joined::spawn("log-follower", move || runtime.block_on(follower.run(stopped)))?;
        let queues = Mutex::new(StreamQueues::default());
        let publisher = Publisher { client, name, copy: copy.clone(), pending, queues };
        let log = Self { _stop: stop, _follower: follower, publisher: Arc::new(publisher), copy, available };
        log.catch_up(stream_ends).await;
        Ok(log)
    }

    /// Waits until the copy has a message and all before it.
    async fn catch_up(&self, end: Sequence) {
        let mut copied = self.copy.sequence();
        // Err of the inner future: impossible, because the copy is open.
        while tokio::time::timeout(PROGRESS, copied.wait_for(|copied| *copied >= end)).await.is_err() {
            tracing::info!(messages = self.copy.sequence().borrow().get(), of = end.get(), "copying the log");
        }
    }
}

#[async_trait]
impl EventLog for JetStreamLog {
    fn append_in(&self, chain: AppendChain, batch: Vec<Append>) -> Appending {
        let (reply, outcome) = oneshot::channel();
        match self.publisher.enqueue(Request { chain, batch, reply }) {
            Some(()) => Box::pin(async { outcome.await.unwrap_or(Err(AppendError::Busy)) }),
            None => Box::pin(std::future::ready(Err(AppendError::Busy))),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn state(&self) -> LogState {
        let sequence = *self.copy.sequence().borrow();
        let behind = self.publisher.pending.last_stored().distance_from(sequence);
        LogState { takes_appends: *self.available.borrow(), copy: Some(CopyState { sequence, behind }) }
    }

    async fn read(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.copy.log().read(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.copy.log().read_all(after, limit).await
    }

    async fn streams(
        &self,
        aggregate: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamId>, ReadError> {
        self.copy.log().streams(aggregate, after, limit).await
    }

    async fn find(&self, stream: &StreamId, command: &CommandId) -> Result<Vec<Recorded>, ReadError> {
        self.copy.log().find(stream, command).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.copy.log().head()
    }
}
