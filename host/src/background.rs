//! Threads for work that is not urgent, such as compiling a component and folding the log for it. They run
//! when the urgent threads leave the processor idle.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::error::Chain;

/// A thirtieth of the other threads' share of a busy processor. With less, a component's call could exceed
/// its time limit while it waits for the processor.
const NICENESS: i32 = 15;

/// The threads. Dropping it aborts their work.
pub(crate) struct Background {
    /// None only during the drop.
    tasks: Option<Runtime>,
    /// The compiler's threads. It divides its work among the threads of the pool in which it runs.
    pool: rayon::ThreadPool,
}

impl Background {
    /// Starts the threads.
    pub(crate) fn start() -> io::Result<Self> {
        let tasks = Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(lower_priority)
            .enable_time()
            .build()?;
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|number| format!("compiler-{number}"))
            .start_handler(|_| lower_priority())
            // The panic hook has reported it, and the caller gets `None`.
            .panic_handler(|_| {})
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { tasks: Some(tasks), pool })
    }

    /// Returns the runtime on which tasks are spawned: that of the caller during the drop.
    pub(crate) fn handle(&self) -> Handle {
        self.tasks.as_ref().map_or_else(Handle::current, |tasks| tasks.handle().clone())
    }

    /// Runs `work` on the compiler's threads. Returns `None` if it panicked.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        self.pool.spawn(move || {
            // Err: the caller has stopped waiting.
            let _ = done.send(work());
        });
        result.await.ok()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(tasks) = self.tasks.take() {
            tasks.shutdown_background();
        }
    }
}

fn lower_priority() {
    // On Linux this concerns only the thread.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(
            error = %Chain(&error),
            "failed to lower a background thread's priority; it competes with requests"
        );
    }
}
