//! The end of a host that is killed.

use std::future::pending;

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
    pub(super) log: EmbeddedLog,
    pub(super) life: std::sync::Arc<Life>,
}

#[async_trait]
impl EventLog for MortalLog {
    fn append_in(&self, lineage: Lineage, batch: Vec<Append>) -> Appending {
        if self.life.is_over() { Box::pin(pending()) } else { self.log.append_in(lineage, batch) }
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
