//! The places of calls. A service has a share of them, so that one whose calls wait for a slow server
//! keeps no other from running. A call takes a place among the calls that exist, of which each has an
//! instance, and one among those that run, which it gives back while it waits for the host.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use super::{MAX_DEPTH, RuntimeLimits};
use crate::clock::deadline_after;
use crate::model::ServiceName;
use crate::shares::{Shares, half};

/// The calls that exist for each of [`RuntimeLimits::instances`]: one service may use as many as that, and
/// the others have as many left.
pub(super) const EXISTING: usize = 2;
/// The number of [`RuntimeLimits::instances`] for each call that runs. Calls that run compute, so some for
/// each core are enough; the fewer there are, the sooner it is another one's turn.
const RUNNING: usize = 8;
/// The wait for the host after which a call gives back its place among the running ones. A shorter one is not
/// worth it.
const GRACE: Duration = Duration::from_millis(2);

/// The kinds of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// A command or a query, at the depth of its scope.
    Request,
    /// A run of a saga, which always gets a fresh instance.
    Saga,
    /// A call that no client waits for.
    Background,
}

/// The reason why a call gets no place.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPlace {
    #[error("services ask each other more than {MAX_DEPTH} calls deep")]
    TooDeep,
    #[error("as many calls of the service as may be there at once are waiting")]
    Busy,
}

/// The places of all components.
pub(super) struct Places {
    limits: RuntimeLimits,
    /// One for each instance, at each depth.
    existing: [Arc<Semaphore>; MAX_DEPTH],
    /// One for each call that does not wait for the host, at each depth.
    running: [Arc<Semaphore>; MAX_DEPTH],
    sagas: Arc<Semaphore>,
    background: Arc<Semaphore>,
    /// Half of all places for each service.
    shares: Shares<Share>,
}

/// The places that one service may have.
pub(super) struct Share {
    existing: [Arc<Semaphore>; MAX_DEPTH],
    running: [Arc<Semaphore>; MAX_DEPTH],
    sagas: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

/// The places of one call.
pub(super) struct Place {
    _existing: [OwnedSemaphorePermit; 2],
    /// `None`: a saga's run waits nearly all of the time, and a call of the background never.
    running: Option<Running>,
}

/// The places among the running calls of the service and of all, and those that the call has.
struct Running {
    places: [Arc<Semaphore>; 2],
    held: Option<[OwnedSemaphorePermit; 2]>,
}

impl Places {
    pub(super) fn new(limits: &RuntimeLimits) -> Self {
        let places = |count| std::array::from_fn(|_| Arc::new(Semaphore::new(count)));
        let of_service = limits.clone();
        Self {
            existing: places(EXISTING * limits.instances),
            running: places(running(limits)),
            sagas: Arc::new(Semaphore::new(limits.sagas)),
            background: Arc::new(Semaphore::new(limits.instances)),
            shares: Shares::new(move || Share::of(&of_service)),
            limits: limits.clone(),
        }
    }

    /// Returns the share of a service.
    pub(super) fn share(&self, service: &ServiceName) -> Arc<Share> {
        self.shares.service(service)
    }

    /// Waits for the places of a call, for as long as a call may wait at all.
    pub(super) async fn take(&self, share: &Share, lane: Lane, depth: usize) -> Result<Place, NoPlace> {
        let (existing, running) = match lane {
            Lane::Saga => ([&share.sagas, &self.sagas], None),
            Lane::Background => ([&share.background, &self.background], None),
            Lane::Request => {
                let of_service = share.existing.get(depth).ok_or(NoPlace::TooDeep)?;
                let running = [share.running[depth].clone(), self.running[depth].clone()];
                ([of_service, &self.existing[depth]], Some(running))
            }
        };
        let places = async {
            let _existing = take_both(existing).await?;
            let running = match running {
                Some(places) => Some(Running { held: Some(take_both(places.each_ref()).await?), places }),
                None => None,
            };
            Some(Place { _existing, running })
        };
        match lane {
            // Sagas and read models wait for their turn, however long it takes.
            Lane::Saga | Lane::Background => places.await.ok_or(NoPlace::Busy),
            Lane::Request => {
                let taken = tokio::time::timeout(self.limits.call_wait, places).await;
                taken.ok().flatten().ok_or(NoPlace::Busy)
            }
        }
    }
}

/// Returns the number of calls that run at a time, at each depth.
fn running(limits: &RuntimeLimits) -> usize {
    limits.instances.div_ceil(RUNNING).max(2)
}

/// Waits for a place of the service, then for one of all. `None`: never, because nobody closes the
/// semaphores.
async fn take_both([of_service, of_all]: [&Arc<Semaphore>; 2]) -> Option<[OwnedSemaphorePermit; 2]> {
    let of_service = of_service.clone().acquire_owned().await.ok()?;
    Some([of_service, of_all.clone().acquire_owned().await.ok()?])
}

impl Share {
    fn of(limits: &RuntimeLimits) -> Self {
        let half = |limit| Arc::new(half(limit));
        Self {
            existing: std::array::from_fn(|_| half(EXISTING * limits.instances)),
            running: std::array::from_fn(|_| half(running(limits))),
            sagas: half(limits.sagas),
            background: half(limits.instances),
        }
    }
}

impl Place {
    /// Drives a call. Its place among the running ones is free while it waits for the host.
    pub(super) async fn drive<C: Future>(&mut self, call: C) -> C::Output {
        let mut call = pin!(call);
        let Some(running) = &mut self.running else { return call.await };
        // Nearly all calls end at the first poll.
        if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
            return output;
        }
        let mut waiting =
            Waiting { running, acquiring: None, woken: Arc::new(Woken::default()), grace: None };
        poll_fn(|context| waiting.poll(call.as_mut(), context)).await
    }
}

/// A call that has waited for the host, or has computed for longer than a tick.
struct Waiting<'p> {
    running: &'p mut Running,
    /// The wait for places, once the call goes on.
    acquiring: Option<BoxFuture<'static, Option<[OwnedSemaphorePermit; 2]>>>,
    woken: Arc<Woken>,
    /// The time at which the call gives its places back, unless it goes on before.
    grace: Option<Pin<Box<Sleep>>>,
}

/// Notes that the call can go on: what wakes the task may also be the end of the grace.
struct Woken {
    call: AtomicBool,
    task: AtomicWaker,
}

impl Default for Woken {
    /// The call is polled once more at first, so that it wakes this from then on.
    fn default() -> Self {
        Self { call: AtomicBool::new(true), task: AtomicWaker::new() }
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.call.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Waiting<'_> {
    fn poll<C: Future>(&mut self, call: Pin<&mut C>, context: &mut Context<'_>) -> Poll<C::Output> {
        self.woken.task.register(context.waker());
        if self.woken.call.load(Ordering::Acquire) {
            if self.running.held.is_none() {
                let places = self.running.places.clone();
                let acquire = async move { take_both(places.each_ref()).await };
                let acquiring = self.acquiring.get_or_insert_with(|| acquire.boxed());
                self.running.held = ready!(acquiring.poll_unpin(context));
                self.acquiring = None;
            }
            self.woken.call.store(false, Ordering::Release);
            if let Poll::Ready(output) = call.poll(&mut Context::from_waker(&Waker::from(self.woken.clone())))
            {
                return Poll::Ready(output);
            }
            match &mut self.grace {
                Some(grace) => grace.as_mut().reset(deadline_after(GRACE)),
                none => *none = Some(Box::pin(sleep(GRACE))),
            }
        }
        if let Some(grace) = &mut self.grace
            && grace.as_mut().poll(context).is_ready()
        {
            self.grace = None;
            self.running.held = None;
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Returns places for two calls that run, and four that exist, at each depth.
    fn places() -> Places {
        let call_wait = Duration::from_secs(1);
        Places::new(&RuntimeLimits { instances: 2, call_wait, sagas: 2, ..RuntimeLimits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_the_host_makes_room_for_another() {
        let places = places();
        let [slow, fast] = ["slow", "fast"].map(|service| places.share(&service.into()));
        let mut calls = Vec::new();
        for _ in 0..2 {
            let (answer, answered) = oneshot::channel::<()>();
            let mut place = places.take(&slow, Lane::Request, 0).await.unwrap();
            calls.push((answer, tokio::spawn(async move { place.drive(answered).await.is_ok() })));
            tokio::time::sleep(2 * GRACE).await;
        }
        // The share of the slow service is in use, and no more: all places to run are free.
        assert!(matches!(places.take(&slow, Lane::Request, 0).await, Err(NoPlace::Busy)));
        assert_eq!(places.running[0].available_permits(), 2);
        let mut other = places.take(&fast, Lane::Request, 0).await.unwrap();
        assert_eq!(other.drive(async { 7 }).await, 7);
        drop(other);

        // It goes on only with a place.
        let all = places.running[0].clone().acquire_many_owned(2).await.unwrap();
        let (answer, call) = calls.remove(0);
        answer.send(()).unwrap();
        tokio::time::sleep(2 * GRACE).await;
        assert!(!call.is_finished());
        drop(all);
        assert!(call.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_computes_keeps_its_place() {
        let places = places();
        let mut place = places.take(&places.share(&"busy".into()), Lane::Request, 0).await.unwrap();
        let running = places.running[0].clone();
        let computing = async {
            for _ in 0..10 {
                // As a tick of the engine does it.
                tokio::task::yield_now().await;
                tokio::time::advance(GRACE / 2).await;
                assert_eq!(running.available_permits(), 1);
            }
        };
        place.drive(computing).await;
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_too_deep_or_find_no_place_in_time_are_refused() {
        let places = places();
        let share = places.share(&"order".into());
        let refused = places.take(&share, Lane::Request, MAX_DEPTH).await.err().unwrap();
        assert!(matches!(refused, NoPlace::TooDeep));
        let _computing = places.take(&share, Lane::Request, 0).await.unwrap();
        assert!(matches!(places.take(&share, Lane::Request, 0).await, Err(NoPlace::Busy)));
        assert!(places.take(&places.share(&"payment".into()), Lane::Request, 0).await.is_ok());
        let _run = places.take(&share, Lane::Saga, 0).await.unwrap();
        let second = tokio::time::timeout(Duration::from_secs(60), places.take(&share, Lane::Saga, 0)).await;
        assert!(second.is_err(), "a saga waits for its turn");
        assert!(places.take(&places.share(&"payment".into()), Lane::Saga, 0).await.is_ok());
    }
}
