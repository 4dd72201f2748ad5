//! The watch over a saga's run: between two steps it computes, so it needs little time. A run that sleeps
//! there would hold its instance for as long as it likes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::clock::Stopwatch;

/// The time since which a run computes. `None`: it waits in a step, as long as that takes.
#[derive(Default)]
pub(crate) struct StepWatch(Mutex<Option<Stopwatch>>);

/// A step that lasts until this is dropped.
pub(super) struct InStep(Arc<StepWatch>);

impl StepWatch {
    /// Notes that the run computes from now on.
    pub(super) fn begin(&self) {
        *self.lock() = Some(Stopwatch::start());
    }

    /// Begins a step.
    pub(super) fn step(self: &Arc<Self>) -> InStep {
        *self.lock() = None;
        InStep(self.clone())
    }

    /// Resolves when the run has computed for longer than the limit between two steps.
    pub(super) async fn overdue(&self, limit: Duration) {
        let mut wait = limit;
        while !wait.is_zero() {
            sleep(wait).await;
            let computed = (*self.lock()).map(|since| since.elapsed());
            wait = computed.map_or(limit, |computed| limit.saturating_sub(computed));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stopwatch>> {
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

    use tokio::time::timeout;

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
        let begun = Stopwatch::start();
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
