//! The event log in a JetStream stream, for several hosts. Every host has a complete copy of the log in the
//! embedded engine, and reads only from it. The stream puts the appends of all hosts in one order. Each
//! append says which version it expects, and every copy finds out in that order whether it fits: all of them
//! keep it or leave it out. The publisher learns the outcome from its own copy, so a conflict is reported
//! only once the copy contains the winning events.
//!
//! - `outgoing`: the queue of appends, and what goes out together.
//! - `publish`: publishes them, and confirms versions.
//! - `follow`: copies the stream.
//! - `pending_appends`: passes outcomes from the copy to the publisher.
//! - `leader_probe`: finds out whether the stream accepts appends.
//! - `setup`: creates the stream, and checks that it is safe.
//! - `wire`: the messages.

mod follow;
mod leader_probe;
mod outgoing;
mod pending_appends;
mod publish;
mod setup;
mod wire;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_trait::async_trait;
use tokio::sync::watch;

use self::follow::Follower;
use self::leader_probe::LeaderProbe;
use self::outgoing::{Outgoing, Request};
use self::pending_appends::PendingAppends;
use self::publish::Publisher;
use super::embedded::{LocalCopy, OpenError, Sequence};
use super::thread::Joined;
use super::{
    Append, AppendError, Appending, Committed, CopyState, EventLog, Footing, KeptAnswer, LogState, ReadError,
};
use crate::model::{AppendChain, CommandId, Position, Recorded, StreamId, Version};

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
    /// A message of the stream cannot be applied to the copy.
    #[error("{0}")]
    Stopped(String),
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
    /// The reason why the stream is not followed any more.
    stopped: watch::Receiver<Option<Arc<str>>>,
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
        let (stopped_sender, stopped) = watch::channel(None);
        let follower = Follower {
            stopped: stopped_sender,
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
        let (stop, stopping) = watch::channel(());
        tokio::spawn(probe.run(stopping.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let follower = Joined::spawn("log-follower", move || runtime.block_on(follower.run(stopping)))?;
        let outgoing = Mutex::new(Outgoing::default());
        let publisher =
            Publisher { client, name, copy: copy.clone(), pending, available: available.clone(), outgoing };
        let publisher = Arc::new(publisher);
        let log = Self { _stop: stop, _follower: follower, publisher, copy, available, stopped };
        log.catch_up(stream_ends).await?;
        Ok(log)
    }

    /// Queues a batch for the publisher.
    fn enqueue(&self, footing: Footing, batch: Vec<Append>, fence: bool) -> Appending {
        if self.stopped.borrow().is_some() {
            return Box::pin(std::future::ready(Err(AppendError::Unavailable)));
        }
        let enqueued = Request::new(footing, batch, fence, self.publisher.pending.last_copied())
            .map_err(|error| AppendError::Failed(Arc::new(error)))
            .and_then(|(request, outcome)| self.publisher.enqueue(request).map(|()| outcome));
        match enqueued {
            Ok(outcome) => Box::pin(async { outcome.await.unwrap_or(Err(AppendError::Busy)) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Waits until the copy has a message and all before it. Fails if the stream is not followed any more.
    async fn catch_up(&self, end: Sequence) -> Result<(), JetStreamError> {
        let (mut copied, mut stopped) = (self.copy.sequence(), self.stopped.clone());
        loop {
            tokio::select! {
                // Err: impossible, because the copy is open.
                _ = copied.wait_for(|copied| *copied >= end) => return Ok(()),
                Ok(reason) = stopped.wait_for(Option::is_some) => {
                    return Err(JetStreamError::Stopped(reason.as_deref().unwrap_or_default().to_owned()));
                }
                () = tokio::time::sleep(PROGRESS) => {}
            }
            let copied = self.copy.sequence().borrow().get();
            tracing::info!(messages = copied, of = end.get(), "copying the log");
        }
    }
}

#[async_trait]
impl EventLog for JetStreamLog {
    fn append_then(&self, footing: Footing, batch: Vec<Append>, committed: Option<Committed>) -> Appending {
        let appending = self.enqueue(footing, batch, false);
        Box::pin(async {
            let appended = appending.await?;
            committed.into_iter().for_each(|committed| committed());
            Ok(appended)
        })
    }

    fn fence(&self, chain: AppendChain, stream: StreamId, expected: Version) -> Appending {
        self.enqueue(chain.into(), vec![Append::nothing(stream, expected)], true)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn state(&self) -> LogState {
        let sequence = *self.copy.sequence().borrow();
        let behind = self.publisher.pending.last_stored().distance_from(sequence);
        let stopped = self.stopped.borrow().clone();
        let copy = self.copy.log().state();
        let takes_appends = *self.available.borrow() && stopped.is_none() && copy.takes_appends;
        LogState { takes_appends, copy: Some(CopyState { sequence, behind }), stopped, ..copy }
    }

    fn known_version(&self, stream: &StreamId) -> Option<Version> {
        self.copy.log().known_version(stream)
    }

    async fn read(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.copy.log().read(stream, after, limit).await
    }

    async fn read_streams(&self, streams: &[(StreamId, Version)]) -> Result<Vec<Vec<Recorded>>, ReadError> {
        self.copy.log().read_streams(streams).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.copy.log().read_all(after, limit).await
    }

    async fn streams(
        &self,
        aggregate: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, ReadError> {
        self.copy.log().streams(aggregate, after, limit).await
    }

    async fn count_streams(&self, aggregate: &str) -> Result<u64, ReadError> {
        self.copy.log().count_streams(aggregate).await
    }

    async fn find(&self, stream: &StreamId, command: &CommandId) -> Result<Vec<Recorded>, ReadError> {
        self.copy.log().find(stream, command).await
    }

    async fn answer(&self, stream: &StreamId, command: &CommandId) -> Result<Option<KeptAnswer>, ReadError> {
        self.copy.log().answer(stream, command).await
    }

    async fn acts(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.copy.log().acts(after, limit).await
    }

    async fn mark_importing(&self, importing: bool) -> Result<(), AppendError> {
        let Publisher { client, name, .. } = &*self.publisher;
        let marked = setup::mark_importing(client, name, importing).await;
        marked.map_err(|source| AppendError::Failed(source.into()))
    }

    async fn is_importing(&self) -> Result<bool, ReadError> {
        let Publisher { client, name, .. } = &*self.publisher;
        let marked = setup::is_importing(client, name).await;
        marked.map_err(|source| ReadError(source.into()))
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.copy.log().head()
    }
}
