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
        for (event, next) in events.iter().zip(events.iter().skip(1).map(Some).chain([None])) {
            if next.is_none_or(|next| next.stream != event.stream) {
                self.0.insert(event.stream.clone(), event.version);
            }
        }
    }

    /// Returns the version of a stream. `None`: it was not written lately.
    pub(super) fn get(&self, stream: &StreamId) -> Option<Version> {
        self.0.get(stream)
    }
}
