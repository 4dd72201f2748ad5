//! The watch over a saga's run: between two steps it computes, so it needs little time. A run that sleeps there
//! would hold its instance for as long as it likes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The time since which a run computes. `None`: it waits in a step, as long as that takes.
#[derive(Default)]
pub(crate) struct StepWatch(Mutex<Option<Instant>>);

/// A step that lasts until this is dropped.
pub(super) struct InStep(Arc<StepWatch>);

impl StepWatch {
    /// Notes that the run computes from now on.
    pub(super) fn begin(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// Begins a step.
    pub(super) fn step(self: &Arc<Self>) -> InStep {
        *self.lock() = None;
        InStep(self.clone())
    }

    /// Resolves when the run has computed for longer than the limit between two steps.
    pub(super) async fn overdue(&self, limit: Duration) {
        let mut look = Instant::now() + limit;
        loop {
            sleep_until(look).await;
            let now = Instant::now();
            look = match *self.lock() {
                Some(since) if since + limit <= now => return,
                Some(since) => since + limit,
                None => now + limit,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InStep {
    fn drop(&mut self) {
        self.0.begin();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{sleep, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_run_may_wait_in_its_steps_and_nowhere_else() {
        let watch = Arc::new(StepWatch::default());
        watch.begin();
        let run = async {
            for _ in 0..5 {
                sleep(LIMIT / 2).await;
                let _in_step = watch.step();
                sleep(10 * LIMIT).await;
            }
            pending::<()>().await;
        };
        let begun = Instant::now();
        tokio::select! {
            () = run => {}
            () = watch.overdue(LIMIT) => {}
        }
        let steps = 5 * (LIMIT / 2 + 10 * LIMIT);
        assert!((steps + LIMIT..=steps + 2 * LIMIT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert!(
            timeout(LIMIT / 2, watch.overdue(LIMIT)).await.is_err(),
            "the limit counts from the question"
        );
    }
}
