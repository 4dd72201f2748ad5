//! Time as a trait, so that tests can hold it still and replays can repeat it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A source of the time. All parts of the host ask it; clippy and `cargo xtask tidy` reject raw clocks.
pub trait Clock: Send + Sync {
    /// Returns the milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> u64;

    /// Resolves at a time in milliseconds since 1970-01-01 UTC.
    fn until(&self, time_ms: u64) -> BoxFuture<'static, ()>;
}

/// The longest sleep before the machine's clock is read again: it may be set during the sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

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
                tokio::time::sleep(Duration::from_millis(left).min(LONGEST_SLEEP)).await;
            }
        }
        .boxed()
    }
}

/// A clock that several parts of the host share.
pub type SharedClock = Arc<dyn Clock>;

/// A point in time, in milliseconds since 1970-01-01 UTC. In JSON it is a text: `2026-11-22T03:18:01.250Z`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[schemars(inline, extend("format" = "date-time"))]
#[serde(into = "String", try_from = "String")]
pub struct Time(pub u64);

impl From<Time> for String {
    fn from(time: Time) -> Self {
        rfc3339(time.0)
    }
}

impl TryFrom<String> for Time {
    type Error = time::error::Parse;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // A time before 1970 counts as 1970: nothing is older.
        let ms = OffsetDateTime::parse(&text, &Rfc3339)?.unix_timestamp_nanos() / 1_000_000;
        Ok(Self(u64::try_from(ms).unwrap_or_default()))
    }
}

fn ms_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Returns a duration in whole milliseconds, at most `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a duration from a whole number of milliseconds, as the configuration has it.
pub(crate) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

/// 9999-12-31T23:59:59.999Z, the last time that RFC 3339 can express: its years have four digits.
const LAST_MS: u64 = 253_402_300_799_999;

/// Returns a time as text: `2026-11-22T03:18:01.250Z`. `time_ms`: milliseconds since 1970-01-01 UTC.
pub fn rfc3339(time_ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time_ms.min(LAST_MS))).to_string()
}

/// Measures how long something takes. Never part of a recorded decision.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_text_of_rfc_3339_in_both_directions() {
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

    #[test]
    fn every_form_of_rfc_3339_is_read() {
        let expected = Time(1_795_317_481_250);
        for text in [
            "2026-11-22T04:18:01.25+01:00",
            "2026-11-22t03:18:01.250999999z",
            "2026-11-21T20:18:01.250-07:00",
            "2026-11-22T03:18:01.250-00:00",
        ] {
            assert_eq!(Time::try_from(text.to_owned()).unwrap(), expected, "{text}");
        }
        assert_eq!(Time::try_from("1969-12-31T23:59:59Z".to_owned()).unwrap(), Time(0));
        for text in ["", "2026-11-22", "2026-11-22T03:18:01", "2026-02-30T00:00:00Z", "yesterday"] {
            assert!(Time::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
