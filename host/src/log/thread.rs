//! Threads that end with what they work for.

use std::io;
use std::thread::{Builder, JoinHandle};

/// A thread that is waited for when this is dropped. Its owner tells it to end first, by dropping the channel that the
/// thread listens on: fields are dropped in the order they are declared in, so the channel stands before the thread.
pub(super) struct Joined(Option<JoinHandle<()>>);

impl Joined {
    pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Builder::new().name(name.to_owned()).spawn(work).map(|handle| Self(Some(handle)))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let Some(handle) = self.0.take() else { return };
        let name = handle.thread().name().unwrap_or_default().to_owned();
        if handle.join().is_err() {
            tracing::error!(thread = name, "a thread has panicked");
        }
    }
}
