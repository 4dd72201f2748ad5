//! The part of the host's own log that one service may fill.

use std::sync::{Mutex, PoisonError};

use crate::clock::Stopwatch;
use crate::model::ServiceName;
use crate::telemetry::LOG_LINES_DROPPED;

/// The most that a service may write into the host's log in a second: some thousand lines.
const BYTES_A_SECOND: usize = 256 << 10;

/// The bytes that a service has written in the current second.
pub(crate) struct LogQuota(Mutex<Second>);

struct Second {
    begun: Stopwatch,
    bytes: usize,
}

impl Default for LogQuota {
    fn default() -> Self {
        Self(Mutex::new(Second { begun: Stopwatch::start(), bytes: 0 }))
    }
}

impl LogQuota {
    /// Takes room for a line. Returns false if there is none: then the line is left out and counted, and the
    /// first one of a second is said.
    pub(super) fn take(&self, service: &ServiceName, line: usize) -> bool {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.begun.elapsed().as_secs() >= 1 {
            *second = Second { begun: Stopwatch::start(), bytes: 0 };
        }
        let before = second.bytes;
        second.bytes = before.saturating_add(line);
        if second.bytes <= BYTES_A_SECOND {
            return true;
        }
        metrics::counter!(LOG_LINES_DROPPED, "service" => service.to_string()).increment(1);
        if before <= BYTES_A_SECOND {
            tracing::warn!(%service, "logs more than {BYTES_A_SECOND} bytes a second; the rest is left out");
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_logs_too_much_is_cut_off_until_the_next_second() {
        let (quota, service) = (LogQuota::default(), ServiceName::from("chatty"));
        let line = BYTES_A_SECOND / 4;
        let taken = || (0..6).filter(|_| quota.take(&service, line)).count();
        assert_eq!(taken(), 4);
        assert_eq!(taken(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(), 4);
    }
}
