//! Appends that build on each other.

use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies appends that build on each other before they are acknowledged. Once one of them has failed, the
/// later ones fail as well, even if another append has brought the stream to the version that they expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendChain(u64);

impl AppendChain {
    /// Returns a chain without appends.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for AppendChain {
    fn default() -> Self {
        Self::new()
    }
}
