//! The chains of appends of which one has failed.

use quick_cache::unsync::Cache;

use super::{AppendError, Footing};
use crate::model::AppendChain;

/// The largest number of failed chains that are remembered: far more than there are callers that do not know
/// of the failure yet.
const MAX_FAILED: usize = 65_536;

/// The chains of which an append has failed.
pub(super) struct FailedChains(Cache<AppendChain, ()>);

impl Default for FailedChains {
    fn default() -> Self {
        Self(Cache::new(MAX_FAILED))
    }
}

impl FailedChains {
    /// Fails if an earlier append has failed that one with this footing builds on.
    pub(super) fn check(&self, footing: Footing) -> Result<(), AppendError> {
        let failed = |chain: &AppendChain| self.0.peek(chain).is_some();
        match footing {
            _ if self.0.is_empty() => Ok(()),
            Footing { chain, .. } if failed(&chain) => Err(AppendError::Discarded),
            Footing { stands_on: Some(other), .. } if failed(&other) => Err(AppendError::Unfounded),
            _ => Ok(()),
        }
    }

    /// Records that an append of a chain has failed.
    pub(super) fn insert(&mut self, chain: AppendChain) {
        self.0.insert(chain, ());
    }
}
