//! The callers that wait for the end of a saga.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::SagaStatus;
use crate::model::SagaId;

/// The waiting callers, by saga.
#[derive(Default)]
pub(super) struct Completions {
    waiting: Mutex<HashMap<SagaId, Vec<oneshot::Sender<SagaStatus>>>>,
}

/// A caller that waits for a saga to end or park. Dropping it ends the wait.
pub(super) struct CompletionWaiter<'a> {
    completions: &'a Completions,
    id: SagaId,
    /// Gets the status at the end. Closed if the host stops.
    pub(super) status: oneshot::Receiver<SagaStatus>,
}

impl Drop for CompletionWaiter<'_> {
    fn drop(&mut self) {
        self.status.close();
        let mut waiting = self.completions.waiting();
        if let Some(senders) = waiting.get_mut(&self.id) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}

impl Completions {
    fn waiting(&self) -> MutexGuard<'_, HashMap<SagaId, Vec<oneshot::Sender<SagaStatus>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for a saga to end or park.
    pub(super) fn wait(&self, id: &SagaId) -> CompletionWaiter<'_> {
        let (sender, status) = oneshot::channel();
        self.waiting().entry(id.clone()).or_default().push(sender);
        CompletionWaiter { completions: self, id: id.clone(), status }
    }

    /// Returns true if a caller waits for the saga.
    pub(super) fn has(&self, id: &SagaId) -> bool {
        self.waiting().contains_key(id)
    }

    /// Sends a final status to the callers that wait for it.
    pub(super) fn notify(&self, status: &SagaStatus) {
        let waiting = self.waiting().remove(&status.id);
        for sender in waiting.unwrap_or_default() {
            // Err: the caller waits no more.
            let _ = sender.send(status.clone());
        }
    }
}
