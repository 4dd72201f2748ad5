//! The versions of the event streams that were written last. A host whose log others write to asks here if a
//! state that it holds is still the newest.

use quick_cache::sync::Cache;

use crate::model::{Recorded, StreamId, Version};

/// The number of streams: about 10 MB.
const MAX_STREAMS: usize = 65_536;

pub(super) struct Versions(Cache<StreamId, Version>);

impl Default for Versions {
    fn default() -> Self {
        Self(Cache::new(MAX_STREAMS))
    }
}

impl Versions {
    /// Records committed events, before anybody can read them.
    pub(super) fn committed(&self, events: &[Recorded]) {
        for commit in events.chunk_by(|event, next| event.stream == next.stream) {
            if let Some(last) = commit.last() {
                self.0.insert(last.stream.clone(), last.version);
            }
        }
    }

    /// Returns the version of a stream. `None`: it was not written lately.
    pub(super) fn get(&self, stream: &StreamId) -> Option<Version> {
        self.0.get(stream)
    }
}
