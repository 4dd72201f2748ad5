//! Lines of the host's log that clients cause: as many of a kind in a second as tell what happens, so that
//! nobody fills the log or hides in it.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// The lines of a kind that are logged in a second: enough to see who does what.
const LINES: u32 = 10;
/// The time in which there are so many lines.
const WINDOW: Duration = Duration::from_secs(1);

/// The lines of requests that failed: under overload they are nearly all.
pub(super) static FAILED: LogRate = LogRate::new();

/// The rate of the lines of one kind.
pub(super) struct LogRate(Mutex<Lines>);

impl LogRate {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Lines::NEW))
    }

    /// Returns the number of lines that were left out before this one. `None`: this one is left out too.
    pub(super) fn admit(&self) -> Option<u64> {
        static SINCE: LazyLock<Stopwatch> = LazyLock::new(Stopwatch::start);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(SINCE.elapsed())
    }
}

/// The lines of a window, and those that were left out.
struct Lines {
    begun: Duration,
    lines: u32,
    left_out: u64,
}

impl Lines {
    const NEW: Self = Self { begun: Duration::ZERO, lines: 0, left_out: 0 };

    fn admit(&mut self, now: Duration) -> Option<u64> {
        if now.saturating_sub(self.begun) >= WINDOW {
            (self.begun, self.lines) = (now, 0);
        }
        if self.lines == LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_a_second_and_none_is_forgotten() {
        let mut rate = Lines::NEW;
        let mut flood = |second| -> Vec<_> {
            (0..1_000).filter_map(|_| rate.admit(Duration::from_secs(second))).collect()
        };
        assert_eq!(flood(0), [0; 10]);
        assert_eq!(flood(1), [990, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(flood(60)[0], 990);
    }
}
