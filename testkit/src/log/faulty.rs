//! A log whose disk fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use kontor::log::{Append, AppendError, Appending, Committed, EventLog, Footing, KeptAnswer, ReadError};
use kontor::model::{CommandId, Position, Recorded, StreamId, Version};
use tokio::sync::watch;

/// The point at which an append fails. Either way the caller gets [`AppendError::Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    BeforeWriting,
    /// Everything is written; only the acknowledgement is lost.
    AfterWriting,
}

/// A log that passes a number of operations to another log. After that, every append and every read fails.
pub struct FaultyLog {
    log: Arc<dyn EventLog>,
    fault: Fault,
    left: AtomicUsize,
}

#[derive(Debug)]
struct DiskGone;

impl std::fmt::Display for DiskGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the test has taken the disk away")
    }
}

impl std::error::Error for DiskGone {}

impl FaultyLog {
    /// Wraps `log`, which fails after `operations` appends and reads.
    pub fn new(log: Arc<dyn EventLog>, operations: usize, fault: Fault) -> Self {
        Self { log, fault, left: AtomicUsize::new(operations) }
    }

    /// Counts an operation. Returns `false` if none is left.
    fn works(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn check_read(&self) -> Result<(), ReadError> {
        if self.works() { Ok(()) } else { Err(ReadError(Arc::new(DiskGone))) }
    }
}

#[async_trait]
impl EventLog for FaultyLog {
    fn append_then(&self, footing: Footing, batch: Vec<Append>, committed: Option<Committed>) -> Appending {
        if self.works() {
            return self.log.append_then(footing, batch, committed);
        }
        let written = match self.fault {
            Fault::BeforeWriting => None,
            Fault::AfterWriting => Some(self.log.append_then(footing, batch, committed)),
        };
        Box::pin(async {
            if let Some(written) = written {
                // Err: conflicts and duplicates are lost on the way like any other answer.
                let _ = written.await;
            }
            Err(AppendError::Failed(Arc::new(DiskGone)))
        })
    }

    async fn read(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.check_read()?;
        self.log.read(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.check_read()?;
        self.log.read_all(after, limit).await
    }

    async fn streams(
        &self,
        aggregate: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Version)>, ReadError> {
        self.check_read()?;
        self.log.streams(aggregate, after, limit).await
    }

    async fn count_streams(&self, aggregate: &str) -> Result<u64, ReadError> {
        self.check_read()?;
        self.log.count_streams(aggregate).await
    }

    async fn find(&self, stream: &StreamId, command: &CommandId) -> Result<Vec<Recorded>, ReadError> {
        self.check_read()?;
        self.log.find(stream, command).await
    }

    async fn answer(&self, stream: &StreamId, command: &CommandId) -> Result<Option<KeptAnswer>, ReadError> {
        self.check_read()?;
        self.log.answer(stream, command).await
    }

    async fn acts(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.check_read()?;
        self.log.acts(after, limit).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.log.head()
    }
}
