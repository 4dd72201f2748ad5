//! Time as a trait, so that tests can hold it still and replays can repeat it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// What tells the time. Everything else in the host asks this; clippy refuses `SystemTime::now`.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> u64;

    /// Resolves when that time has come.
    fn until(&self, time_ms: u64) -> BoxFuture<'static, ()>;
}

/// How often a sleeper looks at the machine's clock: it may be set while somebody sleeps.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now_ms(&self) -> u64 {
        ms_since_1970(SystemTime::now())
    }

    fn until(&self, time_ms: u64) -> BoxFuture<'static, ()> {
        async move {
            while let Some(left) = time_ms.checked_sub(Self.now_ms()).filter(|left| *left > 0) {
                tokio::time::sleep(Duration::from_millis(left).min(LOOK_AGAIN)).await;
            }
        }
        .boxed()
    }
}

pub type SharedClock = Arc<dyn Clock>;

/// Measures how long something takes. Never part of a decision that is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(tokio::time::Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

/// Returns the moment at which a wait of this length ends.
pub fn deadline_after(wait: std::time::Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + wait
}

/// A point in time, in milliseconds since 1970-01-01 UTC. In JSON it is text: `2026-11-22T03:18:01.250Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Time(pub u64);

impl From<Time> for String {
    fn from(time: Time) -> Self {
        rfc3339(time.0)
    }
}

impl TryFrom<String> for Time {
    type Error = humantime::TimestampError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self(ms_since_1970(humantime::parse_rfc3339(&text)?)))
    }
}

fn ms_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// 9999-12-31T23:59:59.999Z: a year of RFC 3339 has four digits.
const LAST_MS: u64 = 253_402_300_799_999;

/// `2026-11-22T03:18:01.250Z`
pub fn rfc3339(time_ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time_ms.min(LAST_MS))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_read_them_and_read_again() {
        for (time_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_317_481_250, "2026-11-22T03:18:01.250Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(time_ms), text);
            assert_eq!(Time::try_from(text.to_owned()).unwrap(), Time(time_ms));
        }
        assert_eq!(rfc3339(u64::MAX), rfc3339(LAST_MS), "a wait without end");
    }
}
