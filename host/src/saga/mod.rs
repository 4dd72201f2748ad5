//! Sagas: business transactions over several aggregates that end by themselves, done or undone.
//!
//! | term | meaning |
//! |---|---|
//! | step | a command of the saga; its id follows from the saga's id and the step's name |
//! | undo | the compensation of a step that was done, by a command of its own |
//! | refused | a step was rejected: the run returns the rejection and the saga unwinds |
//! | failed | a step got neither done nor refused, in all its attempts |
//! | parked | the saga cannot go on without a person |
//!
//! A saga acts only through commands, by the same dispatch as everybody. *Invariant:* whatever a saga did is in its
//! journal or will be: a run that is started again sends the same commands under the same ids.

mod driver;
pub(crate) mod entry;
mod follow;
mod index;
pub(crate) mod journal;
mod migration;
mod operate;
mod record;
mod retry;
mod runner;
mod sender;
pub mod timeline;
mod wait_list;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::aggregate::{CallError, Submit};
use crate::clock::SharedClock;
use crate::cluster::{Cluster, Lease};
use crate::deployed::Components;
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::{Position, Recorded, Rejection, SAGA, SagaId, StreamId};
use crate::runtime::Ask;

pub use journal::SagaState;
pub(crate) use migration::{ReplayOutcome, ReplayedSaga};
pub use operate::{Act, Filter, Overview, StateCount};
pub use retry::{Retries, Retry};

use index::{Change, Index, SagaHandle, UnfinishedSaga};
use journal::Saga;
use record::{RecordError, actor};
use sender::Relinquished;
use wait_list::WaitList;

/// Sagas under way at once, those included that wait for an instance, for the log or for the next attempt of a step: some ten
/// kilobytes each. The others wait in the log.
const MAX_UNDER_WAY: u32 = 4_096;
/// How long a question about a saga waits for events to be looked at that may have started it.
const CATCH_UP: Duration = Duration::from_secs(2);
/// The wait before a saga is tried again whose journal could not be written.
const LOG_PAUSE: Duration = Duration::from_millis(500);

/// What a client may know of a saga.
#[derive(Clone, Debug, Serialize)]
pub struct SagaStatus {
    pub id: SagaId,
    pub service: Arc<str>,
    pub name: Arc<str>,
    pub state: SagaState,
    /// Why it unwinds or unwound.
    pub reason: Option<Rejection>,
}

/// Why the sagas cannot run.
#[derive(Debug, thiserror::Error)]
#[error("the index of sagas cannot be used")]
pub struct SagasError(#[from] rusqlite::Error);

/// What sagas stand on.
pub struct Deps {
    pub log: Arc<dyn EventLog>,
    pub commands: Arc<dyn Submit>,
    pub ask: Arc<dyn Ask>,
    pub components: Arc<Components>,
    pub clock: SharedClock,
    pub retries: Retries,
    /// Who else runs sagas of this log.
    pub cluster: Cluster,
}

/// Runs all sagas of the host.
pub struct Sagas {
    inner: Arc<Inner>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    deps: Deps,
    index: Index,
    waits: WaitList,
    /// True when the host is stopping.
    stopping: watch::Sender<bool>,
    places: Arc<Semaphore>,
    /// The position up to which the sagas that events start are under way or over.
    followed: watch::Sender<Position>,
    /// What is later in the log has never been looked at by anyone: where it ended when this process began to look at it,
    /// unless others look at it too.
    since: Position,
    /// The sagas that have been started here and neither ended nor gone to sleep.
    under_way: Mutex<HashMap<SagaId, ActiveSaga>>,
    /// Who waits for the end of a saga.
    waiting: Mutex<HashMap<SagaId, Vec<oneshot::Sender<SagaStatus>>>>,
}

struct ActiveSaga {
    handle: Arc<SagaHandle>,
    place: Place,
    /// Whether another host has taken it since its journal was read.
    lost: bool,
}

impl ActiveSaga {
    fn new(handle: Arc<SagaHandle>, place: Place) -> Self {
        Self { handle, place, lost: false }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It waits for one.
    None,
    Taken,
    /// Something happened since it looked at the log: it has to look again before it goes to sleep.
    TakenAndCalled,
}

/// Somebody who waits for a saga, and is forgotten when that is over.
struct CompletionWaiter<'a> {
    inner: &'a Inner,
    id: SagaId,
    told: oneshot::Receiver<SagaStatus>,
}

impl Drop for CompletionWaiter<'_> {
    fn drop(&mut self) {
        self.told.close();
        let mut waiting = self.inner.waiting();
        if let Some(senders) = waiting.get_mut(&self.id) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}

impl Sagas {
    /// Takes up all sagas that have not ended, and from then on every one that an event starts. `data`: where the index is.
    pub async fn start(data: &Path, deps: Deps) -> Result<Self, SagasError> {
        let since = if deps.log.is_shared() { Position::MAX } else { *deps.log.head().borrow() };
        let inner = Arc::new(Inner {
            deps,
            since,
            index: Index::open(data)?,
            waits: WaitList::default(),
            stopping: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(MAX_UNDER_WAY as usize)),
            followed: watch::Sender::new(Position::START),
            under_way: Mutex::default(),
            waiting: Mutex::default(),
        });
        let position = inner.index.position().await?;
        let mut handle = Vec::new();
        for UnfinishedSaga { handle: saga, runner, sleeps_until_ms } in inner.index.unfinished().await? {
            let saga = Arc::new(saga);
            match sleeps_until_ms {
                Some(until_ms) if runner.as_ref() == inner.deps.cluster.me() => {
                    inner.waits.add(saga, until_ms, None);
                }
                _ if inner.deps.cluster.owns(saga.id.as_str(), runner.as_ref()) => {
                    let under_way = ActiveSaga::new(saga.clone(), Place::None);
                    inner.under_way().insert(saga.id.clone(), under_way);
                    handle.push(saga);
                }
                _ => {}
            }
        }
        inner.followed.send_replace(position);
        let subscription = Subscription::new(inner.deps.log.clone(), position);
        let tasks = vec![
            tokio::spawn(inner.clone().follow(handle, subscription)),
            tokio::spawn(inner.clone().keep_time()),
            tokio::spawn(inner.clone().clear_components()),
        ];
        Ok(Self { inner, tasks: Mutex::new(tasks) })
    }

    /// None if no such saga was ever started. Looks at all events that are in the log by now.
    pub async fn status(&self, id: &SagaId) -> Result<Option<SagaStatus>, CallError> {
        if let Some(status) = self.journaled(id).await? {
            return Ok(Some(status));
        }
        // The event that started it may be on disk and not looked at yet.
        self.inner.caught_up().await?;
        let begun = self.inner.under_way().get(id).map(|under_way| under_way.handle.status());
        if let Some(status) = begun {
            return Ok(Some(status));
        }
        // If it is over already, its journal says so; and if another host is to begin it, only the index knows it.
        match self.journaled(id).await? {
            Some(status) => Ok(Some(status)),
            None => {
                let known = self.inner.index.find(id).await.map_err(operate::index_error)?;
                Ok(known.map(|known| known.handle.status()))
            }
        }
    }

    /// What its journal says by now; none if it has not begun.
    pub async fn journaled(&self, id: &SagaId) -> Result<Option<SagaStatus>, CallError> {
        let Ok(stream) = StreamId::new(SAGA, id.as_str()) else {
            return Ok(None);
        };
        let (_, saga) = record::read(&*self.inner.deps.log, &stream).await.map_err(unreadable)?;
        Ok(saga.map(|saga| SagaStatus::of(id, &saga)))
    }

    /// The status when the saga has ended or parked, or after `limit` as it stands then.
    pub async fn wait(&self, id: &SagaId, limit: Duration) -> Result<Option<SagaStatus>, CallError> {
        let mut settling = self.inner.settling(id);
        let status = self.journaled(id).await?;
        if status.as_ref().is_some_and(|status| status.state.settled()) {
            return Ok(status);
        }
        match tokio::time::timeout(limit, &mut settling.told).await {
            Ok(Ok(status)) => Ok(Some(status)),
            // The time is over, or the host stops.
            _ => self.journaled(id).await,
        }
    }

    /// Stops after the commands under way; every saga goes on when the host starts again.
    pub async fn close(&self) {
        self.inner.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // Err: it has panicked, which the panic hook has told.
            let _ = task.await;
        }
        let followed = *self.inner.followed.borrow();
        if let Err(error) = self.inner.index.write(Vec::new(), followed).await {
            tracing::warn!(%error, "the next start looks at some events again");
        }
        // Err: closed before, after the same wait.
        let _ = self.inner.places.acquire_many(MAX_UNDER_WAY).await;
        self.inner.places.close();
    }
}

fn unreadable(error: RecordError) -> CallError {
    match error {
        RecordError::Read(error) => CallError::Read(error),
        RecordError::Append(error) => CallError::Append(error),
        other => CallError::Read(ReadError(Arc::new(other))),
    }
}

impl SagaState {
    /// Whether nothing moves any more by itself.
    fn settled(self) -> bool {
        self.ended() || self == Self::Parked
    }
}

impl SagaStatus {
    fn of(id: &SagaId, saga: &Saga) -> Self {
        let Saga { service, name, state, reason, .. } = saga;
        Self {
            id: id.clone(),
            service: service.clone(),
            name: name.clone(),
            state: *state,
            reason: reason.clone(),
        }
    }
}

impl SagaHandle {
    fn status(&self) -> SagaStatus {
        SagaStatus {
            id: self.id.clone(),
            service: self.service.clone(),
            name: self.name.clone(),
            state: SagaState::Running,
            reason: None,
        }
    }
}

impl Inner {
    fn under_way(&self) -> MutexGuard<'_, HashMap<SagaId, ActiveSaga>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Whether the next step of a saga that runs here is still to be taken here. `lease`: under which its journal was read.
    fn check_ownership(&self, id: &SagaId, lease: Option<Lease>) -> Result<(), Relinquished> {
        let held = lease.is_some() && self.deps.cluster.lease() == lease;
        let lost = || self.under_way().get(id).is_some_and(|under_way| under_way.lost);
        if self.is_stopping() || !held || lost() { Err(Relinquished) } else { Ok(()) }
    }

    async fn stopped(&self) {
        // Err cannot be: the sender is in here.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    async fn pause(&self, time: Duration) -> Result<(), Relinquished> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(Relinquished),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// WaitList until all events that are in the log by now have been looked at.
    async fn caught_up(&self) -> Result<(), CallError> {
        let head = *self.deps.log.head().borrow();
        let mut followed = self.followed.subscribe();
        let caught_up = tokio::time::timeout(CATCH_UP, followed.wait_for(|position| *position >= head)).await;
        match caught_up {
            Ok(Ok(_)) => Ok(()),
            _ => Err(CallError::Busy { queue: "the queue of sagas" }),
        }
    }

    /// Begins to wait for a saga that runs here to end or park.
    fn settling(&self, id: &SagaId) -> CompletionWaiter<'_> {
        let (sender, told) = oneshot::channel();
        let id = id.clone();
        self.waiting().entry(id.clone()).or_default().push(sender);
        CompletionWaiter { inner: self, id, told }
    }

    /// Runs a saga on a task of its own, as soon as there is a place. One that runs already looks at the log once more.
    /// `new`: the event that started it, of a saga that has never run.
    async fn spawn(
        self: &Arc<Self>,
        handle: Arc<SagaHandle>,
        new: Option<Recorded>,
    ) -> Result<(), Relinquished> {
        {
            let mut under_way = self.under_way();
            let entry = under_way
                .entry(handle.id.clone())
                .or_insert_with(|| ActiveSaga::new(handle.clone(), Place::None));
            if entry.place != Place::None {
                entry.place = Place::TakenAndCalled;
                return Ok(());
            }
            entry.place = Place::Taken;
        }
        let place = tokio::select! {
            biased;
            () = self.stopped() => return Err(Relinquished),
            place = self.places.clone().acquire_owned() => place.map_err(|_| Relinquished)?,
        };
        tokio::spawn(self.clone().run(handle, new, place));
        Ok(())
    }

    /// Takes a saga that does not run, so that nobody else runs it.
    fn claim(&self, handle: &Arc<SagaHandle>) -> bool {
        let mut under_way = self.under_way();
        let free = !under_way.contains_key(&handle.id);
        if free {
            under_way.insert(handle.id.clone(), ActiveSaga::new(handle.clone(), Place::Taken));
        }
        free
    }

    /// Lets go of a saga that was taken. Whether it has to look at the log: what it waits for may have come while it could
    /// not be woken.
    fn release(&self, id: &SagaId) -> bool {
        let taken = self.under_way().remove(id);
        taken.is_some_and(|taken| taken.place == Place::TakenAndCalled)
    }

    async fn run(
        self: Arc<Self>,
        handle: Arc<SagaHandle>,
        mut new: Option<Recorded>,
        _place: OwnedSemaphorePermit,
    ) {
        loop {
            if let Some(under_way) = self.under_way().get_mut(&handle.id) {
                under_way.lost = false;
            }
            match runner::run(&self, &handle, new.take()).await {
                Ok(status) if status.state.settled() => {
                    self.under_way().remove(&handle.id);
                    return self.tell(&status);
                }
                Ok(_) | Err(runner::RunError::Relinquished(_)) if self.goes_to_sleep(&handle.id) => return,
                Ok(_) | Err(runner::RunError::Relinquished(_)) => {}
                Err(error) if error.is_overtaken() => {
                    tracing::debug!(saga = %handle.id, %error, "another host has written to a saga's journal");
                }
                Err(error) => {
                    tracing::error!(saga = %handle.id, name = %handle.name, %error, "a saga cannot go on");
                    if !error.passes() {
                        self.note_stuck(&handle, &error).await;
                        break;
                    }
                    if self.pause(LOG_PAUSE).await.is_err() {
                        break;
                    }
                }
            }
        }
        self.under_way().remove(&handle.id);
    }

    /// Shows in the index what the journal cannot say. The next start tries again.
    async fn note_stuck(&self, handle: &SagaHandle, error: &runner::RunError) {
        let stuck = Change::Stuck { id: handle.id.clone(), why: error.to_string() };
        let position = *self.followed.borrow();
        if let Err(error) = self.index.write(vec![stuck], position).await {
            tracing::error!(%error, "the index of sagas cannot be written");
        }
    }

    /// Whether nothing has happened since a waiting saga looked at the log.
    fn goes_to_sleep(&self, id: &SagaId) -> bool {
        let mut under_way = self.under_way();
        match under_way.get_mut(id) {
            Some(entry) if entry.place == Place::TakenAndCalled => {
                entry.place = Place::Taken;
                false
            }
            _ => {
                under_way.remove(id);
                true
            }
        }
    }

    /// Tells those who wait, and the operator.
    fn tell(&self, status: &SagaStatus) {
        let SagaStatus { id, name, state, .. } = status;
        metrics::counter!("kontor_sagas_settled_total", "saga" => name.to_string(), "state" => state.as_str())
            .increment(1);
        if *state == SagaState::Parked {
            tracing::error!(saga = %id, %name, "a saga is parked and needs a person");
        } else {
            tracing::debug!(saga = %id, %name, state = state.as_str(), "a saga has ended");
        }
        self.tell_waiting(status);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<SagaId, Vec<oneshot::Sender<SagaStatus>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_waiting(&self, status: &SagaStatus) {
        let waiting = self.waiting().remove(&status.id);
        for sender in waiting.unwrap_or_default() {
            // Err: nobody waits any more.
            let _ = sender.send(status.clone());
        }
    }
}
