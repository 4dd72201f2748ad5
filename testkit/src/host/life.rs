//! The end of a host that is killed, and the log that it leaves behind.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use kontor::log::{Append, Appending, EmbeddedLog, EventLog, Lineage, ReadError};
use kontor::model::{CommandId, Position, Recorded, StreamId, Version};
use tokio::sync::watch;

/// Whether a host is still alive.
#[derive(Default)]
pub struct Life {
    over: watch::Sender<bool>,
}

impl Life {
    /// Nothing is written any more from now on.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    pub(crate) async fn over(&self) {
        // Err cannot be: the sender is in here.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// A log that takes nothing any more when its host is dead. Whoever appends then never hears of it, like all that a
/// process does not live to see.
pub(super) struct MortalLog {
    pub(super) log: Arc<EmbeddedLog>,
    pub(super) life: Arc<Life>,
    pub(super) order: Order,
}

/// In which order a log takes appends to several streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// In that of the calls, as the embedded log does.
    #[default]
    OfCalls,
    /// In any, as a log does that is shared. Here in the worst: an entry of a journal comes when somebody waits for it.
    Any,
}

#[async_trait]
impl EventLog for MortalLog {
    fn append_in(&self, lineage: Lineage, batch: Vec<Append>) -> Appending {
        let journal = batch.iter().all(|append| append.stream.aggregate() == "saga");
        let (log, life) = (self.log.clone(), self.life.clone());
        let append = move || if life.is_over() { Box::pin(pending()) } else { log.append_in(lineage, batch) };
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
    ) -> Result<Vec<StreamId>, ReadError> {
        self.log.streams(aggregate, after, limit).await
    }

    async fn find(&self, stream: &StreamId, command: &CommandId) -> Result<Vec<Recorded>, ReadError> {
        self.log.find(stream, command).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.log.head()
    }
}
