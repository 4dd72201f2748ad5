//! The fences of other hosts: messages without events, which move the end of an event stream. An append that
//! was begun before a fence has the old end, so the server does not take it any more; and its publisher must
//! not try again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quick_cache::unsync::Cache;

use super::Sequence;
use crate::model::StreamId;

/// The largest number of event streams whose last fence is known: far more than there are rejected steps of
/// sagas within the time of an append.
const MAX_FENCES: usize = 16_384;

/// The last fence of each event stream, as far as the copy has them.
pub(super) struct Fences(Mutex<Cache<StreamId, Sequence>>);

impl Default for Fences {
    fn default() -> Self {
        Self(Mutex::new(Cache::new(MAX_FENCES)))
    }
}

impl Fences {
    /// Records the fence of another host, before the copy reports its message.
    pub(super) fn insert(&self, stream: StreamId, sequence: Sequence) {
        self.cache().insert(stream, sequence);
    }

    /// Returns whether an event stream was fenced behind a message.
    pub(super) fn any_after(&self, stream: &StreamId, sequence: Sequence) -> bool {
        self.cache().peek(stream).is_some_and(|fence| *fence > sequence)
    }

    fn cache(&self) -> MutexGuard<'_, Cache<StreamId, Sequence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
