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
mod moving;
mod operate;
mod record;
mod retry;
mod runner;
mod sender;
pub mod timeline;
mod waits;

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
use crate::model::{Position, Recorded, Rejection, SAGA, SagaId, SagaName, ServiceName, StreamId};
use crate::runtime::Ask;

pub use journal::SagaState;
pub(crate) use moving::{Course, Rehearsed};
pub use operate::{Act, Census, Filter, Overview};
pub use retry::{Retries, Retry};

use index::{Change, Index, Open, Unended};
use journal::Saga;
use record::{RecordError, actor};
use sender::NotHere;
use waits::Waits;

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
    pub service: ServiceName,
    pub name: SagaName,
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
    pub nodes: Cluster,
}

/// Runs all sagas of the host.
pub struct Sagas {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    deps: Deps,
    index: Index,
    waits: Waits,
    /// True when the host is stopping.
    stopping: watch::Sender<bool>,
    places: Arc<Semaphore>,
    /// The position up to which the sagas that events start are under way or over.
    followed: watch::Sender<Position>,
    /// What is later in the log has never been looked at by anyone: where it ended when this process began to look at it,
    /// unless others look at it too.
    since: Position,
    /// The sagas that have been started here and neither ended nor gone to sleep.
    under_way: Mutex<HashMap<SagaId, UnderWay>>,
    /// Who waits for the end of a saga.
    waiting: Mutex<HashMap<SagaId, Vec<oneshot::Sender<SagaStatus>>>>,
}

struct UnderWay {
    open: Arc<Open>,
    place: Place,
    /// Whether another host has taken it since its journal was read.
    lost: bool,
}

impl UnderWay {
    fn new(open: Arc<Open>, place: Place) -> Self {
        Self { open, place, lost: false }
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
struct Settling<'a> {
    shared: &'a Shared,
    id: SagaId,
    told: oneshot::Receiver<SagaStatus>,
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.told.close();
        let mut waiting = self.shared.waiting();
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
        let shared = Arc::new(Shared {
            deps,
            since,
            index: Index::open(data)?,
            waits: Waits::default(),
            stopping: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(MAX_UNDER_WAY as usize)),
            followed: watch::Sender::new(Position::START),
            under_way: Mutex::default(),
            waiting: Mutex::default(),
        });
        let position = shared.index.position().await?;
        let mut open = Vec::new();
        for Unended { open: saga, runner, sleeps_until_ms } in shared.index.unended().await? {
            let saga = Arc::new(saga);
            match sleeps_until_ms {
                Some(until_ms) if runner.as_ref() == shared.deps.nodes.me() => {
                    shared.waits.add(saga, until_ms, None);
                }
                _ if shared.deps.nodes.owns(saga.id.as_str(), runner.as_ref()) => {
                    let under_way = UnderWay::new(saga.clone(), Place::None);
                    shared.under_way().insert(saga.id.clone(), under_way);
                    open.push(saga);
                }
                _ => {}
            }
        }
        shared.followed.send_replace(position);
        let subscription = Subscription::new(shared.deps.log.clone(), position);
        let tasks = vec![
            tokio::spawn(shared.clone().follow(open, subscription)),
            tokio::spawn(shared.clone().keep_time()),
            tokio::spawn(shared.clone().clear_components()),
        ];
        Ok(Self { shared, tasks: Mutex::new(tasks) })
    }

    /// None if no such saga was ever started. Looks at all events that are in the log by now.
    pub async fn status(&self, id: &SagaId) -> Result<Option<SagaStatus>, CallError> {
        if let Some(status) = self.journaled(id).await? {
            return Ok(Some(status));
        }
        // The event that started it may be on disk and not looked at yet.
        self.shared.caught_up().await?;
        let begun = self.shared.under_way().get(id).map(|under_way| under_way.open.status());
        if let Some(status) = begun {
            return Ok(Some(status));
        }
        // If it is over already, its journal says so; and if another host is to begin it, only the index knows it.
        match self.journaled(id).await? {
            Some(status) => Ok(Some(status)),
            None => {
                let known = self.shared.index.find(id).await.map_err(operate::index_error)?;
                Ok(known.map(|known| known.open.status()))
            }
        }
    }

    /// What its journal says by now; none if it has not begun.
    pub async fn journaled(&self, id: &SagaId) -> Result<Option<SagaStatus>, CallError> {
        let Ok(stream) = StreamId::new(SAGA, id.as_str()) else {
            return Ok(None);
        };
        let (_, saga) = record::read(&*self.shared.deps.log, &stream).await.map_err(unreadable)?;
        Ok(saga.map(|saga| SagaStatus::of(id, &saga)))
    }

    /// The status when the saga has ended or parked, or after `limit` as it stands then.
    pub async fn wait(&self, id: &SagaId, limit: Duration) -> Result<Option<SagaStatus>, CallError> {
        let mut settling = self.shared.settling(id);
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
        self.shared.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // Err: it has panicked, which the panic hook has told.
            let _ = task.await;
        }
        let followed = *self.shared.followed.borrow();
        if let Err(error) = self.shared.index.write(Vec::new(), followed).await {
            tracing::warn!(%error, "the next start looks at some events again");
        }
        // Err: closed before, after the same wait.
        let _ = self.shared.places.acquire_many(MAX_UNDER_WAY).await;
        self.shared.places.close();
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

impl Open {
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

impl Shared {
    fn under_way(&self) -> MutexGuard<'_, HashMap<SagaId, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Whether the next step of a saga that runs here is still to be taken here. `lease`: under which its journal was read.
    fn goes_on(&self, id: &SagaId, lease: Option<Lease>) -> Result<(), NotHere> {
        let held = lease.is_some() && self.deps.nodes.lease() == lease;
        let lost = || self.under_way().get(id).is_some_and(|under_way| under_way.lost);
        if self.is_stopping() || !held || lost() { Err(NotHere) } else { Ok(()) }
    }

    async fn stopped(&self) {
        // Err cannot be: the sender is in here.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    async fn pause(&self, time: Duration) -> Result<(), NotHere> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(NotHere),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Waits until all events that are in the log by now have been looked at.
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
    fn settling(&self, id: &SagaId) -> Settling<'_> {
        let (sender, told) = oneshot::channel();
        let id = id.clone();
        self.waiting().entry(id.clone()).or_default().push(sender);
        Settling { shared: self, id, told }
    }

    /// Runs a saga on a task of its own, as soon as there is a place. One that runs already looks at the log once more.
    /// `new`: the event that started it, of a saga that has never run.
    async fn spawn(self: &Arc<Self>, open: Arc<Open>, new: Option<Recorded>) -> Result<(), NotHere> {
        {
            let mut under_way = self.under_way();
            let entry =
                under_way.entry(open.id.clone()).or_insert_with(|| UnderWay::new(open.clone(), Place::None));
            if entry.place != Place::None {
                entry.place = Place::TakenAndCalled;
                return Ok(());
            }
            entry.place = Place::Taken;
        }
        let place = tokio::select! {
            biased;
            () = self.stopped() => return Err(NotHere),
            place = self.places.clone().acquire_owned() => place.map_err(|_| NotHere)?,
        };
        tokio::spawn(self.clone().run(open, new, place));
        Ok(())
    }

    /// Takes a saga that does not run, so that nobody else runs it.
    fn claim(&self, open: &Arc<Open>) -> bool {
        let mut under_way = self.under_way();
        let free = !under_way.contains_key(&open.id);
        if free {
            under_way.insert(open.id.clone(), UnderWay::new(open.clone(), Place::Taken));
        }
        free
    }

    /// Lets go of a saga that was taken. Whether it has to look at the log: what it waits for may have come while it could
    /// not be woken.
    fn let_go(&self, id: &SagaId) -> bool {
        let taken = self.under_way().remove(id);
        taken.is_some_and(|taken| taken.place == Place::TakenAndCalled)
    }

    async fn run(self: Arc<Self>, open: Arc<Open>, mut new: Option<Recorded>, _place: OwnedSemaphorePermit) {
        loop {
            if let Some(under_way) = self.under_way().get_mut(&open.id) {
                under_way.lost = false;
            }
            match runner::run(&self, &open, new.take()).await {
                Ok(status) if status.state.settled() => {
                    self.under_way().remove(&open.id);
                    return self.tell(&status);
                }
                Ok(_) | Err(runner::RunError::NotHere(_)) if self.goes_to_sleep(&open.id) => return,
                Ok(_) | Err(runner::RunError::NotHere(_)) => {}
                Err(error) if error.is_overtaken() => {
                    tracing::debug!(saga = %open.id, %error, "another host has written to a saga's journal");
                }
                Err(error) => {
                    tracing::error!(saga = %open.id, name = %open.name, %error, "a saga cannot go on");
                    if !error.passes() {
                        self.note_stuck(&open, &error).await;
                        break;
                    }
                    if self.pause(LOG_PAUSE).await.is_err() {
                        break;
                    }
                }
            }
        }
        self.under_way().remove(&open.id);
    }

    /// Shows in the index what the journal cannot say. The next start tries again.
    async fn note_stuck(&self, open: &Open, error: &runner::RunError) {
        let stuck = Change::Stuck { id: open.id.clone(), why: error.to_string() };
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
