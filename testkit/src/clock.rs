//! A clock for tests.

use std::pin::Pin;
use std::time::Duration;

use kontor::clock::{Clock, millis};
use tokio::sync::watch;

/// A clock that stands still until the test moves it. It never goes back.
#[derive(Debug)]
pub struct TestClock {
    now_ms: watch::Sender<u64>,
}

impl TestClock {
    /// A clock that shows `now_ms`: milliseconds since 1970-01-01 UTC.
    pub fn new(now_ms: u64) -> Self {
        Self { now_ms: watch::Sender::new(now_ms) }
    }

    /// Moves the clock forward and wakes every task whose time has come.
    pub fn advance(&self, time: Duration) {
        let time_ms = millis(time);
        self.now_ms.send_modify(|now_ms| *now_ms = now_ms.saturating_add(time_ms));
    }

    /// Moves the clock to a time, unless it has reached it already.
    pub fn advance_to(&self, time_ms: u64) {
        self.now_ms.send_modify(|now_ms| *now_ms = time_ms.max(*now_ms));
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        *self.now_ms.borrow()
    }

    fn until(&self, time_ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut now_ms = self.now_ms.subscribe();
        Box::pin(async move {
            if now_ms.wait_for(|now_ms| *now_ms >= time_ms).await.is_err() {
                // Err: the clock was dropped, so its time never comes.
                std::future::pending().await
            }
        })
    }
}
