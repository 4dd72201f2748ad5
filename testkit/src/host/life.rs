//! The death of a host, and the log that it leaves behind.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use kontor::log::{
    Append, AppendError, Appending, Committed, EmbeddedLog, EventLog, Footing, KeptAnswer, ReadError,
};
use kontor::model::{CommandId, Position, Recorded, StreamId, Version};
use tokio::sync::watch;

/// The state of a host: alive or dead.
#[derive(Default)]
pub struct Life {
    over: watch::Sender<bool>,
}

impl Life {
    /// Ends the host's life: nothing is written from now on.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    pub(crate) async fn over(&self) {
        // Err: impossible, because `self` holds the sender.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// A log that takes nothing more once its host is dead. Appends then never end, as for a process that does
/// not live to see their result.
pub(super) struct MortalLog {
    pub(super) log: Arc<EmbeddedLog>,
    pub(super) life: Arc<Life>,
    pub(super) order: Order,
    /// The maximum size of an append, in bytes of payload.
    pub(super) largest_append: usize,
}

/// The order in which a log takes appends to several streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// The order of the calls, as in the embedded log.
    #[default]
    OfCalls,
    /// Any order, as in a shared log. Here the worst: a journal entry is appended only when its result is
    /// awaited.
    Any,
}

#[async_trait]
impl EventLog for MortalLog {
    fn append_then(&self, footing: Footing, batch: Vec<Append>, committed: Option<Committed>) -> Appending {
        let sizes = batch.iter().flat_map(|append| &append.events).map(|event| event.payload.as_str().len());
        if sizes.sum::<usize>() > self.largest_append {
            let source: Box<dyn std::error::Error + Send + Sync> = "the log of this test is small".into();
            return Box::pin(std::future::ready(Err(AppendError::TooLarge(source.into()))));
        }
        let journal = batch.iter().all(|append| append.stream.aggregate() == "saga");
        let (log, life) = (self.log.clone(), self.life.clone());
        let append = move || match life.is_over() {
            true => Box::pin(pending()),
            false => log.append_then(footing, batch, committed),
        };
        if self.order == Order::Any && journal {
            return Box::pin(async move { append().await });
        }
        append()
    }

    fn is_shared(&self) -> bool {
        self.order == Order::Any
    }

    async fn read(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.log.read(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.log.read_all(after, limit).await
    }

    async fn streams(
        &self,
        aggregate: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, ReadError> {
        self.log.streams(aggregate, after, limit).await
    }

    async fn count_streams(&self, aggregate: &str) -> Result<u64, ReadError> {
        self.log.count_streams(aggregate).await
    }

    async fn find(&self, stream: &StreamId, command: &CommandId) -> Result<Vec<Recorded>, ReadError> {
        self.log.find(stream, command).await
    }

    async fn answer(&self, stream: &StreamId, command: &CommandId) -> Result<Option<KeptAnswer>, ReadError> {
        self.log.answer(stream, command).await
    }

    async fn acts(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.log.acts(after, limit).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.log.head()
    }
}
