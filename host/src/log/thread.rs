//! Threads that end with their owner.

use std::io;
use std::thread::{Builder, JoinHandle};

/// A thread that is joined when this is dropped. Its owner must first drop the channel that the thread reads
/// from, which ends it. Fields are dropped in the order of their declaration, so the channel is declared
/// before the thread.
pub(super) struct Joined(Option<JoinHandle<()>>);

impl Joined {
    /// Starts a thread.
    pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Builder::new().name(name.to_owned()).spawn(work).map(|handle| Self(Some(handle)))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let Some(handle) = self.0.take() else { return };
        let name = handle.thread().name().unwrap_or_default().to_owned();
        if handle.join().is_err() {
            tracing::error!(thread = name, "a thread has panicked; its work is not done any more");
        }
    }
}
