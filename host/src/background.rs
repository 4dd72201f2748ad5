//! Threads for what may take its time, such as compiling a component and folding the log for it: they run when those that
//! somebody waits for leave the processor to them.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// A thirtieth of the others' share of a busy processor. With less, a component's call could run out of time while it waits
/// for its turn.
const NICENESS: i32 = 15;

/// Dropped, it breaks off what it does.
pub(crate) struct Background {
    /// None only while it is dropped.
    tasks: Option<Runtime>,
    /// For the compiler, which divides its work among the threads of the pool that it runs in.
    pool: rayon::ThreadPool,
}

impl Background {
    pub(crate) fn start() -> io::Result<Self> {
        let tasks = Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(step_back)
            .enable_time()
            .build()?;
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|number| format!("compiler-{number}"))
            .start_handler(|_| step_back())
            // The panic hook has told, and whoever waits gets nothing.
            .panic_handler(|_| {})
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { tasks: Some(tasks), pool })
    }

    /// Where tasks are spawned; that of the caller while this is dropped.
    pub(crate) fn handle(&self) -> Handle {
        self.tasks.as_ref().map_or_else(Handle::current, |tasks| tasks.handle().clone())
    }

    /// Computes something. None if it has panicked.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        self.pool.spawn(move || {
            // Err: nobody waits any more.
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

fn step_back() {
    // On Linux this concerns the thread alone. Err: then its work is as urgent as any other.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "a background thread keeps its priority");
    }
}
