//! The appends that this process has published and whose outcome is still open. The local copy finds the
//! outcome when it processes the message. Nothing else decides it: an acknowledgment of the server may get
//! lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::Sequence;
use super::wire::PublishId;
use crate::log::{AppendError, Outcome};

/// The outcomes of all appends of a message, or the reason why it did not arrive.
pub(super) type Outcomes = Result<Vec<Outcome>, AppendError>;

/// The messages of this process whose outcome is open.
pub(super) struct PendingAppends {
    /// The process, for as long as it has the log open.
    process: Uuid,
    registered: Mutex<Registered>,
    /// The last message that is known to be in the stream.
    stored: AtomicU64,
    /// The last message that the copy has processed.
    copied: watch::Sender<Sequence>,
}

/// The messages that wait for their outcome.
#[derive(Default)]
struct Registered {
    /// The number of the next message.
    next: u64,
    /// The receivers of the outcomes, by the numbers of their messages.
    waiting: HashMap<u64, oneshot::Sender<Outcomes>>,
    /// The error of all messages, once the copy receives no more.
    abandoned: Option<AppendError>,
}

/// A message whose outcomes are awaited. Dropping it ends the wait.
pub(super) struct PendingAppend<'a> {
    all: &'a PendingAppends,
    pub(super) id: PublishId,
    pub(super) outcomes: oneshot::Receiver<Outcomes>,
}

impl PendingAppends {
    /// `copied`: the last message in the copy.
    pub(super) fn new(copied: Sequence) -> Self {
        Self {
            process: Uuid::now_v7(),
            registered: Mutex::default(),
            stored: AtomicU64::new(copied.get()),
            copied: watch::Sender::new(copied),
        }
    }

    /// Returns the id for a new message, and the receiver of its outcomes.
    pub(super) fn register(&self) -> PendingAppend<'_> {
        let (sender, outcomes) = oneshot::channel();
        let mut registered = self.registered();
        let number = registered.next;
        registered.next += 1;
        match &registered.abandoned {
            // Err: impossible, because the receiver is here.
            Some(error) => drop(sender.send(Err(error.clone()))),
            None => drop(registered.waiting.insert(number, sender)),
        }
        PendingAppend { all: self, id: PublishId { process: self.process, number }, outcomes }
    }

    /// Returns whether this process has published a message.
    pub(super) fn is_own(&self, publisher: PublishId) -> bool {
        publisher.process == self.process
    }

    /// Reports the outcomes of a message. Must be called in the order of the sequences.
    pub(super) fn resolve(&self, sequence: Sequence, publisher: Option<PublishId>, outcomes: Vec<Outcome>) {
        if let Some(id) = publisher.filter(|id| self.is_own(*id))
            && let Some(waiting) = self.registered().waiting.remove(&id.number)
        {
            // Err: nobody waits any more.
            let _ = waiting.send(Ok(outcomes));
        }
        self.copied.send_replace(sequence);
    }

    /// Reports to all publishers, now and later, that the copy does not receive their messages.
    pub(super) fn abandon(&self, error: &AppendError) {
        let mut registered = self.registered();
        registered.abandoned = Some(error.clone());
        for (_, waiting) in registered.waiting.drain() {
            // Err: nobody waits any more.
            let _ = waiting.send(Err(error.clone()));
        }
    }

    /// Waits until the copy has processed a message and all before it.
    pub(super) async fn until_copied(&self, sequence: Sequence) {
        self.note_stored(sequence);
        // Err: impossible, because `self` holds the sender.
        let _ = self.copied.subscribe().wait_for(|copied| *copied >= sequence).await;
    }

    /// Returns the last message that the copy has processed.
    pub(super) fn last_copied(&self) -> Sequence {
        *self.copied.borrow()
    }

    /// Records that a message is in the stream, copied or not.
    pub(super) fn note_stored(&self, sequence: Sequence) {
        self.stored.fetch_max(sequence.get(), Ordering::Relaxed);
    }

    /// Returns the last message that is known to be in the stream.
    pub(super) fn last_stored(&self) -> Sequence {
        Sequence::new(self.stored.load(Ordering::Relaxed))
    }

    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PendingAppend<'_> {
    fn drop(&mut self) {
        self.all.registered().waiting.remove(&self.id.number);
    }
}
