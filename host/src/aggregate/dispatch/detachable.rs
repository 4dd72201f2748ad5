//! Work that goes on if its caller stops waiting.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::runtime::Handle;

/// A future that runs on the task of its caller, and on another one after the caller has dropped it. Resolves
/// to `None` if it has panicked, which the panic hook has reported.
pub(super) struct Detachable<T: Send + 'static>(Option<BoxFuture<'static, Option<T>>>);

impl<T: Send + 'static> Detachable<T> {
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(AssertUnwindSafe(work).catch_unwind().map(Result::ok).boxed()))
    }
}

impl<T: Send + 'static> Future for Detachable<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Ready(None) };
        let done = ready!(work.poll_unpin(context));
        self.0 = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Detachable<T> {
    fn drop(&mut self) {
        let Some(work) = self.0.take() else { return };
        // Err: the runtime has ended, and nothing can go on.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn it_goes_on_when_its_caller_drops_it() {
        let (begun, mut has_begun) = mpsc::unbounded_channel();
        let (go_on, may_go_on) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let mut work = Detachable::new(async move {
            begun.send(()).unwrap();
            may_go_on.await.unwrap();
            done.send(7).unwrap();
        });
        tokio::select! {
            _ = &mut work => unreachable!("nobody has let it go on"),
            begun = has_begun.recv() => begun.unwrap(),
        }
        drop(work);
        go_on.send(()).unwrap();
        assert_eq!(is_done.await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_does_not_reach_the_caller() {
        assert_eq!(Detachable::new(async { 7 }).await, Some(7));
        assert_eq!(Detachable::<()>::new(async { panic!("a defect") }).await, None);
    }
}
