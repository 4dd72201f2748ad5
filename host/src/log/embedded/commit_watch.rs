//! The watch over the commits: how long each takes, and whether one hangs at this moment.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Histogram;

use crate::clock::Stopwatch;
use crate::telemetry::LOG_COMMIT;

/// The time after which a commit is worth a warning. An ordinary one takes milliseconds.
const STALLED: Duration = Duration::from_secs(1);

/// The commit that is under way.
pub(super) struct CommitWatch {
    begun: Mutex<Option<Stopwatch>>,
    seconds: Histogram,
}

impl Default for CommitWatch {
    fn default() -> Self {
        Self { begun: Mutex::default(), seconds: metrics::histogram!(LOG_COMMIT) }
    }
}

impl CommitWatch {
    /// Times a commit.
    pub(super) fn time<T>(&self, commit: impl FnOnce() -> T) -> T {
        let begun = Stopwatch::start();
        *self.lock() = Some(begun);
        let done = commit();
        *self.lock() = None;
        self.seconds.record(begun.elapsed());
        done
    }

    /// Returns the time that the commit under way has taken so far, if that is long.
    pub(super) fn stalled(&self) -> Option<Duration> {
        self.lock().map(|begun| begun.elapsed()).filter(|time| *time >= STALLED)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stopwatch>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
