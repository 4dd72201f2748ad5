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
mod index;
pub(crate) mod journal;
mod record;
mod runner;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::SharedClock;
use crate::deploy::Registry;
use crate::dispatch::Dispatch;
use crate::error::CallError;
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::{Position, Recorded, Rejection, StreamId};
use crate::runtime::Ask;

pub(crate) use record::AGGREGATE;

use index::{Change, Index, Open};
pub use journal::SagaState;
use record::RecordError;

/// A UUID made from the event that started it and the saga's name.
pub type SagaId = Arc<str>;

/// Sagas under way at once, those included that wait for the log or the next attempt of a step. The others wait in the log.
const MAX_UNDER_WAY: u32 = 1_024;
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

/// Runs all sagas of the host.
pub struct Sagas {
    shared: Arc<Shared>,
    following: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    log: Arc<dyn EventLog>,
    dispatch: Dispatch,
    ask: Arc<dyn Ask>,
    registry: Arc<Registry>,
    clock: SharedClock,
    index: Index,
    /// True when the host is stopping.
    stopping: watch::Sender<bool>,
    places: Arc<Semaphore>,
    /// The position up to which the sagas that events start are under way or over.
    followed: watch::Sender<Position>,
    /// The sagas that have been started and not ended here, those included that wait for a place.
    under_way: Mutex<HashMap<SagaId, Open>>,
    /// Who waits for the end of a saga.
    waiting: Mutex<HashMap<SagaId, Vec<oneshot::Sender<()>>>>,
}

impl Sagas {
    /// Takes up all sagas that have not ended, and from then on every one that an event starts.
    pub async fn start(
        data: &Path,
        log: Arc<dyn EventLog>,
        dispatch: Dispatch,
        ask: Arc<dyn Ask>,
        registry: Arc<Registry>,
        clock: SharedClock,
    ) -> Result<Self, SagasError> {
        let shared = Arc::new(Shared {
            log,
            dispatch,
            ask,
            registry,
            clock,
            index: Index::open(data)?,
            stopping: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(MAX_UNDER_WAY as usize)),
            followed: watch::Sender::new(0),
            under_way: Mutex::default(),
            waiting: Mutex::default(),
        });
        let open = shared.index.open_sagas().await?;
        let position = shared.index.position().await?;
        shared.under_way().extend(open.iter().map(|open| (open.id.clone(), open.clone())));
        shared.followed.send_replace(position);
        let subscription = Subscription::new(shared.log.clone(), position);
        let following = tokio::spawn(shared.clone().follow(open, subscription));
        Ok(Self { shared, following: Mutex::new(Some(following)) })
    }

    /// None if no such saga was ever started. Looks at all events that are in the log by now.
    pub async fn status(&self, id: &str) -> Result<Option<SagaStatus>, CallError> {
        if let Some(status) = self.journaled(id).await? {
            return Ok(Some(status));
        }
        // The event that started it may be on disk and not looked at yet.
        let head = *self.shared.log.head().borrow();
        let mut followed = self.shared.followed.subscribe();
        let caught_up = tokio::time::timeout(CATCH_UP, followed.wait_for(|position| *position >= head));
        if !matches!(caught_up.await, Ok(Ok(_))) {
            return Err(CallError::Busy { queue: "the queue of sagas" });
        }
        let begun = self.shared.under_way().get(id).map(Open::status);
        match begun {
            Some(status) => Ok(Some(status)),
            // If it is over already, its journal says so.
            None => self.journaled(id).await,
        }
    }

    /// What its journal says by now; none if it has not begun.
    pub async fn journaled(&self, id: &str) -> Result<Option<SagaStatus>, CallError> {
        let Ok(stream) = StreamId::new(AGGREGATE, id) else {
            return Ok(None);
        };
        let (_, saga) = record::read(&*self.shared.log, &stream).await.map_err(|error| match error {
            RecordError::Read(error) => CallError::Read(error),
            other => CallError::Read(ReadError(Arc::new(other))),
        })?;
        Ok(saga.map(|saga| SagaStatus {
            id: id.into(),
            service: saga.service,
            name: saga.name,
            state: saga.state,
            reason: saga.reason,
        }))
    }

    /// The status when the saga has ended or parked, or after `limit` as it stands then.
    pub async fn wait(&self, id: &str, limit: Duration) -> Result<Option<SagaStatus>, CallError> {
        let settled = self.shared.settled(id);
        let status = self.journaled(id).await?;
        if status.as_ref().is_some_and(|status| status.state.settled()) {
            return Ok(status);
        }
        // Either way the journal says how it stands.
        let _ = tokio::time::timeout(limit, settled).await;
        self.journaled(id).await
    }

    /// Stops after the commands under way; every saga goes on when the host starts again.
    pub async fn close(&self) {
        self.shared.stopping.send_replace(true);
        let following = self.following.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(following) = following {
            // Err: it has panicked, which the panic hook has told.
            let _ = following.await;
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

impl SagaState {
    /// Whether nothing moves any more by itself.
    fn settled(self) -> bool {
        self.ended() || self == Self::Parked
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
    fn under_way(&self) -> MutexGuard<'_, HashMap<SagaId, Open>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when a saga that runs here has ended or parked.
    fn settled(&self, id: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = waiting.entry(id.into()).or_default();
        senders.retain(|sender| !sender.is_closed());
        senders.push(sender);
        receiver
    }

    /// Runs the open sagas, then those that the log's events start.
    async fn follow(self: Arc<Self>, open: Vec<Open>, mut subscription: Subscription) {
        if !open.is_empty() {
            tracing::info!(sagas = open.len(), "taking up the sagas that have not ended");
        }
        for saga in open {
            if self.spawn(saga).await.is_none() {
                return;
            }
        }
        let mut stopping = self.stopping.subscribe();
        loop {
            let page = tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                page = subscription.next() => page,
            };
            match page {
                Ok(Some(page)) if self.take_in(&page).await.is_some() => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "sagas cannot follow the log");
                    tokio::time::sleep(LOG_PAUSE).await;
                }
            }
        }
    }

    /// Starts the sagas that a page of events starts, and remembers that. None when the host is stopping.
    async fn take_in(self: &Arc<Self>, page: &[Recorded]) -> Option<()> {
        let deployed = self.registry.current();
        let mut changes = Vec::new();
        for event in page {
            if event.stream.aggregate() == AGGREGATE {
                let state = SagaState::of_entry(&event.name);
                changes.extend(state.map(|state| Change::Moved { id: event.stream.id().into(), state }));
                continue;
            }
            for (id, trigger) in deployed.started_by(&event.stream, &event.name, event.index, &event.meta) {
                let open = Open {
                    id,
                    trigger: event.position,
                    service: trigger.component.manifest().service.clone(),
                    name: trigger.saga.clone(),
                };
                changes.push(Change::Triggered(open.clone()));
                self.spawn(open).await?;
            }
        }
        let position = page.last()?.position;
        let mut stopping = self.stopping.subscribe();
        // No later position may be written before these triggers are: a restart would not look for them again.
        while let Err(error) = self.index.apply(changes.clone(), position).await {
            tracing::error!(%error, "the index of sagas cannot be written");
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return None,
                () = tokio::time::sleep(LOG_PAUSE) => {}
            }
        }
        self.followed.send_replace(position);
        Some(())
    }

    /// Runs a saga on a task of its own, as soon as there is a place. None when the host is stopping.
    async fn spawn(self: &Arc<Self>, open: Open) -> Option<()> {
        self.under_way().insert(open.id.clone(), open.clone());
        let mut stopping = self.stopping.subscribe();
        let place = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return None,
            place = self.places.clone().acquire_owned() => place.ok()?,
        };
        tokio::spawn(self.clone().run(open, place));
        Some(())
    }

    async fn run(self: Arc<Self>, open: Open, _place: OwnedSemaphorePermit) {
        metrics::gauge!("kontor_sagas_running").increment(1);
        let mut stopping = self.stopping.subscribe();
        loop {
            match runner::run(&self, &open).await {
                Ok(state) => {
                    self.tell(&open, state);
                    break;
                }
                Err(runner::RunError::Stopping) => break,
                Err(error) => {
                    tracing::error!(saga = %open.id, name = %open.name, %error, "a saga cannot go on");
                    if !error.passes() {
                        break;
                    }
                }
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => break,
                () = tokio::time::sleep(LOG_PAUSE) => {}
            }
        }
        self.under_way().remove(&open.id);
        metrics::gauge!("kontor_sagas_running").decrement(1);
    }

    /// Tells those who wait, and the operator.
    fn tell(&self, open: &Open, state: SagaState) {
        metrics::counter!("kontor_sagas_settled_total", "saga" => open.name.to_string(), "state" => state.as_str())
            .increment(1);
        if state == SagaState::Parked {
            tracing::error!(saga = %open.id, name = %open.name, "a saga is parked and needs a person");
        } else {
            tracing::debug!(saga = %open.id, name = %open.name, state = state.as_str(), "a saga has ended");
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&open.id);
        for sender in waiting.unwrap_or_default() {
            // Err: nobody waits any more.
            let _ = sender.send(());
        }
    }
}
