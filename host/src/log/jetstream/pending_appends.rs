//! What becomes of the messages that this process has published, as the local copy finds when they come by. That is the only
//! truth: an acknowledgement may get lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::Sequence;
use super::wire::PublishId;
use crate::log::{AppendError, Appended};

/// Where its last event is now in the copy; or why the copy has refused it.
pub(super) type Landed = Result<Appended, AppendError>;

pub(super) struct Landings {
    process: Uuid,
    expected: Mutex<Expected>,
    /// The last message that is known to be in the stream.
    stored: AtomicU64,
    /// Up to which message all have come by.
    reached: watch::Sender<Sequence>,
}

#[derive(Default)]
struct Expected {
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<Landed>>,
}

/// Waits for a message; dropped, it waits no longer.
pub(super) struct Landing<'a> {
    landings: &'a Landings,
    pub(super) id: PublishId,
    pub(super) landed: oneshot::Receiver<Landed>,
}

impl Landings {
    /// `reached`: what the copy has already.
    pub(super) fn new(reached: Sequence) -> Self {
        Self {
            process: Uuid::now_v7(),
            expected: Mutex::default(),
            stored: AtomicU64::new(reached.get()),
            reached: watch::Sender::new(reached),
        }
    }

    pub(super) fn expect(&self) -> Landing<'_> {
        let (tell, landed) = oneshot::channel();
        let mut expected = self.expected();
        let number = expected.next;
        expected.next += 1;
        expected.waiting.insert(number, tell);
        Landing { landings: self, id: PublishId { process: self.process, number }, landed }
    }

    /// A message has come by, in the order of the sequences.
    pub(super) fn land(&self, sequence: Sequence, publisher: Option<PublishId>, landed: Landed) {
        if let Some(id) = publisher.filter(|id| id.process == self.process)
            && let Some(waiting) = self.expected().waiting.remove(&id.number)
        {
            // Err: nobody waits any more.
            let _ = waiting.send(landed);
        }
        self.reached.send_replace(sequence);
    }

    /// Waits until everything up to a message has come by.
    pub(super) async fn reached(&self, sequence: Sequence) {
        self.stored(sequence);
        // Err cannot be: the sender is in here.
        let _ = self.reached.subscribe().wait_for(|reached| *reached >= sequence).await;
    }

    /// Up to which message all have come by.
    pub(super) fn has_reached(&self) -> Sequence {
        *self.reached.borrow()
    }

    /// A message is in the stream, whether it has come by or not.
    pub(super) fn stored(&self, sequence: Sequence) {
        self.stored.fetch_max(sequence.get(), Ordering::Relaxed);
    }

    pub(super) fn last_stored(&self) -> Sequence {
        Sequence::new(self.stored.load(Ordering::Relaxed))
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.landings.expected().waiting.remove(&self.id.number);
    }
}
