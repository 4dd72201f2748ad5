//! The event log in a JetStream stream, for several hosts. Every host has a copy of all of it in the embedded engine and
//! reads only there; what differs is how events get in: they are published on the condition that their event stream ends
//! where the copy says, and are told when they come by in the copy. An event stream that has ended elsewhere is a
//! conflict, and whoever is told can read what came first.

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
use self::leader_probe::Presence;
use self::pending_appends::Landings;
use self::publish::Publisher;
use self::stream_queues::{Lanes, Request};
use super::embedded::{LocalCopy, OpenError, Sequence};
use super::thread::Joined;
use super::{Append, AppendChain, AppendError, Appending, CopyState, EventLog, LogState, ReadError};
use crate::model::{CommandId, Position, Recorded, StreamId, Version};

pub use self::setup::{JetStreamOptions, SetupError, SyncPolicy};

/// How often it is told how far a copy is that has much to get.
const PROGRESS: Duration = Duration::from_secs(5);

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JetStreamError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Copy(#[from] OpenError),
    #[error("no thread can be started to follow the stream")]
    Thread(#[from] io::Error),
}

/// The log of one host among several. Dropping it ends it, after what is on its way into the copy.
pub struct JetStreamLog {
    // The order matters: told by the first, those in the background end, and with them and the publisher the copy is free.
    _stop: watch::Sender<()>,
    _follower: Joined,
    publisher: Arc<Publisher>,
    copy: Arc<LocalCopy>,
    /// Whether the stream is there.
    here: watch::Receiver<bool>,
}

impl JetStreamLog {
    /// Opens the stream, made with so many `replicas` if there is none, and its copy in `dir`; returns when the copy has
    /// everything that is in the stream by then.
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
        let landings = Arc::new(Landings::new(copy_ends));
        let follower = Follower {
            client: client.clone(),
            name: name.clone(),
            copy: copy.clone(),
            landings: landings.clone(),
        };
        let (tell_here, here) = watch::channel(true);
        let presence = Presence {
            client: client.clone(),
            name: name.clone(),
            landings: landings.clone(),
            here: tell_here,
        };
        let (stop, stopped) = watch::channel(());
        tokio::spawn(presence.run(stopped.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let follower = Joined::spawn("log-follower", move || runtime.block_on(follower.run(stopped)))?;
        let lanes = Mutex::new(Lanes::default());
        let publisher = Publisher { client, name, copy: copy.clone(), landings, lanes };
        let log = Self { _stop: stop, _follower: follower, publisher: Arc::new(publisher), copy, here };
        log.catch_up(stream_ends).await;
        Ok(log)
    }

    async fn catch_up(&self, end: Sequence) {
        let mut reached = self.copy.sequence();
        // Err of the inner one cannot be: the copy is open.
        while tokio::time::timeout(PROGRESS, reached.wait_for(|reached| *reached >= end)).await.is_err() {
            tracing::info!(messages = self.copy.sequence().borrow().get(), of = end.get(), "copying the log");
        }
    }
}

#[async_trait]
impl EventLog for JetStreamLog {
    fn append_in(&self, chain: AppendChain, batch: Vec<Append>) -> Appending {
        let (reply, fate) = oneshot::channel();
        match self.publisher.enqueue(Request { chain, batch, reply }) {
            Some(()) => Box::pin(async { fate.await.unwrap_or(Err(AppendError::Busy)) }),
            None => Box::pin(std::future::ready(Err(AppendError::Busy))),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn state(&self) -> LogState {
        let sequence = *self.copy.sequence().borrow();
        let behind = self.publisher.landings.last_stored().distance_from(sequence);
        LogState { takes_appends: *self.here.borrow(), copy: Some(CopyState { sequence, behind }) }
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
