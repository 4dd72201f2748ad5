//! Requests that were denied: counted, and logged at a bounded rate. Anybody can cause them, so they must
//! neither fill the host's log nor hide in it.

use std::fmt::Display;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;

use super::caller_limits::Sender;
use crate::clock::Stopwatch;
use crate::contract::Problem;
use crate::telemetry;

/// The lines that are logged in a second: enough to see who tries what.
const LINES: u32 = 10;
/// The time in which there are so many lines.
const WINDOW: Duration = Duration::from_secs(1);

/// The reason why a request was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
enum DeniedReason {
    /// The caller has not signed in, or its token is not valid: 401.
    NotSignedIn,
    /// The caller has none of the roles: 403.
    NoRole,
    /// The caller, or its address, has sent too many: 429.
    RateLimited,
}

impl DeniedReason {
    /// Returns the reason behind a status; `None`: a request with it was not denied.
    fn of(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::UNAUTHORIZED => Some(Self::NotSignedIn),
            StatusCode::FORBIDDEN => Some(Self::NoRole),
            StatusCode::TOO_MANY_REQUESTS => Some(Self::RateLimited),
            _ => None,
        }
    }
}

/// Returns the problem of a request. One that was denied is counted, and logged if there are not too many.
/// `request`: the method and the path, or the subject.
pub(super) fn note(problem: Problem, sender: impl FnOnce() -> Sender, request: impl Display) -> Problem {
    static SINCE: LazyLock<Stopwatch> = LazyLock::new(Stopwatch::start);
    static RATE: Mutex<LogRate> = Mutex::new(LogRate::NEW);
    let Some(reason) = DeniedReason::of(problem.status()) else { return problem };
    let reason: &'static str = reason.into();
    metrics::counter!(telemetry::DENIED, "reason" => reason).increment(1);
    let admitted = RATE.lock().unwrap_or_else(PoisonError::into_inner).admit(SINCE.elapsed());
    if let Some(left_out) = admitted {
        let who = sender();
        tracing::warn!(reason, %who, %request, left_out, "denied a request; it had no effect");
    }
    problem
}

/// The lines of a window, and those that were left out.
struct LogRate {
    begun: Duration,
    lines: u32,
    left_out: u64,
}

impl LogRate {
    const NEW: Self = Self { begun: Duration::ZERO, lines: 0, left_out: 0 };

    /// Returns the number of lines that were left out before this one. `None`: this one is left out too.
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
    fn a_flood_of_denied_requests_is_a_few_lines_a_second_and_none_is_forgotten() {
        let mut rate = LogRate::NEW;
        let mut flood = |second| -> Vec<_> {
            (0..1_000).filter_map(|_| rate.admit(Duration::from_secs(second))).collect()
        };
        assert_eq!(flood(0), [0; 10]);
        assert_eq!(flood(1), [990, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(flood(60)[0], 990);
    }

    #[test]
    fn the_reasons_are_those_of_the_reference() {
        let reasons = [DeniedReason::NotSignedIn, DeniedReason::NoRole, DeniedReason::RateLimited];
        let names: [&'static str; 3] = reasons.map(Into::into);
        assert_eq!(names, ["not-signed-in", "no-role", "rate-limited"]);
    }
}
