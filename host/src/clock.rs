//! Time as a trait, so that tests can hold it still and replays can repeat it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::BoxFuture;

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
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
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

/// `2026-11-22T03:18:01.250Z`
pub fn rfc3339(time_ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time_ms)).to_string()
}
