//! Keeps the tasks of messaging alive: one that panics is reported and started again.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;

use crate::telemetry;
use crate::warning::Warning;

/// The pause before the first restart. It doubles before each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: a task that panics each time costs nothing, and one whose cause has passed is soon
/// back.
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// The time after which a task that was started again counts as healthy. Longer than [`LONGEST_PAUSE`], so
/// that a task that panics each time has its warning all the time.
const HEALTHY: Duration = Duration::from_secs(60);

/// A part of messaging has panicked.
#[derive(Debug, thiserror::Error)]
#[error("a part of the host has failed ({0}); it was started again")]
pub(super) struct Panicked(pub(super) String);

impl Panicked {
    /// Returns the failure of a panic that was caught.
    pub(super) fn of(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("panic").to_owned())
    }
}

/// Runs a task, and runs it again after each panic. Returns when it ends by itself. `name` is that of the
/// metric.
pub(super) async fn supervise<T: Future<Output = ()>>(
    name: &'static str,
    warning: &Warning,
    mut task: impl FnMut() -> T,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut running = std::pin::pin!(AssertUnwindSafe(task()).catch_unwind());
        let ended = match tokio::time::timeout(HEALTHY, &mut running).await {
            Ok(ended) => ended,
            Err(_) => {
                warning.clear();
                pause = FIRST_PAUSE;
                running.await
            }
        };
        let Err(panic) = ended else { return };
        metrics::counter!(telemetry::MESSAGING_RESTARTS, "task" => name).increment(1);
        warning.set(&Panicked::of(&*panic));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again_with_a_warning_until_it_is_healthy() {
        let (warning, starts) = (Warning::new("events are not published"), Cell::new(0));
        let task = async || {
            starts.set(starts.get() + 1);
            if starts.get() <= 2 {
                panic!("no {}", starts.get());
            }
            tokio::time::sleep(2 * HEALTHY).await;
        };
        let mut supervised = std::pin::pin!(supervise("publisher", &warning, task));
        let mut after = async |time: Duration| {
            let ended = tokio::time::timeout(time, &mut supervised).await.is_ok();
            (starts.get(), warning.sentence(), ended)
        };
        let sentence = |number| {
            let failed = format!("a part of the host has failed (no {number}); it was started again");
            Some(format!("events are not published: {failed}"))
        };
        assert_eq!(after(FIRST_PAUSE / 2).await, (1, sentence(1), false));
        assert_eq!(after(FIRST_PAUSE).await, (2, sentence(2), false));
        assert_eq!(after(2 * FIRST_PAUSE).await, (3, sentence(2), false));
        assert_eq!(after(HEALTHY).await, (3, None, false));
        assert_eq!(after(2 * HEALTHY).await, (3, None, true));
    }
}
