//! The requests of operators: lists, counts, timelines, and acts on parked sagas.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;
use uuid::Uuid;

use super::change::Change;
use super::entry::Entry;
use super::index::{Listed, SagaHandle};
use super::inner::Inner;
use super::journal::{Saga, SagaState};
use super::timeline::{StartedBy, Timeline};
use super::{CATCH_UP, RecordError, SagaError, SagaStatus, Sagas, record, runner};
use crate::clock::{Time, deadline_after};
use crate::model::{Caller, Rejection, SAGA, SagaId, SagaName, ServiceName, StreamId, Version};

/// The sagas to list. A field that is `None` selects all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The state that they are in.
    pub state: Option<SagaState>,
    /// The saga's name: `place-order`.
    pub name: Option<String>,
    /// The id of a saga: only older ones are listed.
    pub before: Option<String>,
    /// The maximum number of sagas.
    pub limit: usize,
}

/// A saga in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaOverview")]
pub struct Overview {
    /// The saga's id.
    pub id: SagaId,
    /// The service that it belongs to.
    pub service: ServiceName,
    /// The saga's name: `place-order`.
    pub name: SagaName,
    /// The state that it is in.
    pub state: SagaState,
    /// The stream of the event that started it: `order/0199…`.
    pub stream: String,
    /// The time at which that event was recorded.
    pub started: Time,
    /// The reason why it is parked, or cannot run at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The number and the age of the sagas in one of the states that are not an end.
#[derive(Clone, Debug, PartialEq)]
pub struct StateCount {
    /// The state.
    pub state: SagaState,
    /// The number of sagas in it.
    pub sagas: u64,
    /// The time since the oldest of them was started; zero if there is none.
    pub oldest: Duration,
}

/// An operator's act on a parked saga.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Retries the steps or undos that failed.
    Retry {
        /// The operator's reason.
        reason: Option<String>,
    },
    /// Leaves out a step or an undo that failed, and continues.
    Skip {
        /// The step's name. It may be `None` if only one failed.
        step: Option<String>,
        /// The operator's reason.
        reason: String,
    },
    /// Ends the saga: the operator has settled everything by hand.
    Resolve {
        /// The operator's reason.
        reason: String,
    },
}

impl Sagas {
    /// Lists sagas, the newest first. Knows all events that are in the log by now, unless more sagas wait
    /// than can run: an operator must be able to see those that are in the way.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Overview>, SagaError> {
        // Err: behind. An answer without the latest sagas is better than none.
        let _ = self.inner.caught_up().await;
        let Filter { state, name, before, limit } = filter;
        let listed = self.inner.index.list(state, name, before, limit).await?;
        let overview = |listed: Listed| Overview {
            started: time_of(&listed.handle.id),
            stream: listed.handle.trigger.stream.to_string(),
            id: listed.handle.id,
            service: listed.handle.service,
            name: listed.handle.name,
            state: listed.state,
            why: listed.why,
        };
        Ok(listed.into_iter().map(overview).collect())
    }

    /// Counts the sagas that have not ended: one item for each state. Like [`Sagas::list`], it knows all
    /// events that are in the log by now, if it can.
    pub async fn counts(&self) -> Result<Vec<StateCount>, SagaError> {
        // Err: behind. An answer without the latest sagas is better than none.
        let _ = self.inner.caught_up().await;
        let counted = self.inner.index.counts().await?;
        let now_ms = self.inner.deps.clock.now_ms();
        let count_of = |state: SagaState| {
            let found = counted.iter().find(|(counted, ..)| *counted == state);
            let (sagas, started_ms) = found.map_or((0, now_ms), |(_, sagas, id)| (*sagas, time_of(id).0));
            StateCount { state, sagas, oldest: Duration::from_millis(now_ms.saturating_sub(started_ms)) }
        };
        Ok(SagaState::ALL.iter().copied().filter(|state| !state.ended()).map(count_of).collect())
    }

    /// Returns the timeline of a saga. Knows all events that are in the log by now. Rejected with
    /// `not-found`.
    pub async fn timeline(&self, id: &SagaId) -> Result<Timeline, SagaError> {
        let (handle, why) = self.find(id).await?;
        let trigger = runner::trigger(&self.inner, &handle).await?;
        let stream = StreamId::new(SAGA, id.as_str()).map_err(RecordError::from)?;
        let journal = record::events(&*self.inner.deps.log, &stream).await?;
        let timeline = Timeline::of(&handle, &trigger, &journal)?;
        // The reason why a saga cannot run is only in the index.
        Ok(Timeline { why: timeline.why.or(why), ..timeline })
    }

    /// Returns the caller that started a saga. Rejected with `not-found`.
    pub async fn started_by(&self, id: &SagaId) -> Result<StartedBy, SagaError> {
        let (handle, _) = match self.known(id).await? {
            // The event that started it never changes, so there is nothing to wait for.
            Some(known) => known,
            None => self.find(id).await?,
        };
        Ok(StartedBy::of(&runner::trigger(&self.inner, &handle).await?))
    }

    /// Acts on a parked saga. The act is on disk when this returns, and the saga continues. Rejected with
    /// `not-found`, `saga-not-parked` or `step-not-failed`.
    pub async fn act(&self, id: &SagaId, act: Act, caller: &Caller) -> Result<SagaStatus, SagaError> {
        let handle = Arc::new(self.find(id).await?.0);
        self.claim(&handle).await?;
        // On a task of its own: a caller that stops waiting must not leave the saga claimed.
        let acting = tokio::spawn(self.inner.clone().act(handle, act, caller.clone()));
        acting.await.unwrap_or(Err(SagaError::ShuttingDown))?;
        Ok(self.journaled(id).await?.ok_or_else(|| not_found(id))?)
    }

    /// Returns a saga, and the reason why it is parked or cannot run at all.
    async fn find(&self, id: &SagaId) -> Result<(SagaHandle, Option<String>), SagaError> {
        // Err: behind. Most sagas that operators ask for are older than that.
        let caught_up = self.inner.caught_up().await;
        match self.known(id).await? {
            Some(saga) => Ok(saga),
            None => Err(caught_up.err().unwrap_or_else(|| not_found(id).into())),
        }
    }

    /// Returns a saga by the index, or by its journal: one that ended long ago is only there.
    async fn known(&self, id: &SagaId) -> Result<Option<(SagaHandle, Option<String>)>, SagaError> {
        if let Some(Listed { handle, why, .. }) = self.inner.index.find(id).await? {
            return Ok(Some((handle, why)));
        }
        let Ok(stream) = StreamId::new(SAGA, id.as_str()) else { return Ok(None) };
        let begin = self.inner.deps.log.read(&stream, Version::START, 1).await.map_err(RecordError::from)?;
        match begin.first().and_then(Change::of) {
            Some(Change::Started { handle }) => Ok(Some((Arc::unwrap_or_clone(handle), None))),
            _ => Ok(None),
        }
    }

    /// Claims a parked saga, so that nothing else runs it.
    async fn claim(&self, handle: &Arc<SagaHandle>) -> Result<(), SagaError> {
        let deadline = deadline_after(CATCH_UP);
        let mut in_time = true;
        loop {
            let mut waiter = self.inner.completions.wait(&handle.id);
            if self.inner.roster().claim(handle) {
                return Ok(());
            }
            let state = self.journaled(&handle.id).await?.map_or(SagaState::Running, |status| status.state);
            if state != SagaState::Parked {
                return Err(not_parked(state).into());
            }
            if !in_time {
                return Err(SagaError::Busy { queue: "the queue of acts on the saga" });
            }
            // A saga that is active although its journal says parked is about to be released, by its run or
            // another act.
            in_time = timeout_at(deadline, &mut waiter.status).await.is_ok();
        }
    }
}

impl Inner {
    /// Acts on a claimed saga, and releases it.
    async fn act(
        self: Arc<Self>,
        handle: Arc<SagaHandle>,
        act: Act,
        caller: Caller,
    ) -> Result<(), SagaError> {
        // A retry of a saga whose code was at fault is one on the deployed component, if that replays it.
        let mended = match &act {
            Act::Retry { reason } => self.mend(&handle, (caller.clone(), reason.clone())).await,
            Act::Skip { .. } | Act::Resolve { .. } => false,
        };
        let acted = match mended {
            true => Ok(()),
            false => {
                let decide = |saga: Option<&Saga>, _| act.entry(saga).map(|entry| vec![entry]);
                let acted = runner::act(&self, &handle, caller.clone(), decide).await;
                acted.map_err(SagaError::from).and_then(|acted| Ok(acted?))
            }
        };
        if acted.is_ok() {
            tracing::info!(saga = %handle.id, actor = %caller.actor(), ?act, "an operator acted on a saga");
        }
        self.release(handle, acted.is_ok()).await;
        acted
    }
}

impl Act {
    /// Returns the act's entry in the journal. Rejected if the saga is in no state for it.
    fn entry(&self, saga: Option<&Saga>) -> Result<Entry, Rejection> {
        let state = saga.map_or(SagaState::Running, |saga| saga.state);
        let saga = saga.filter(|_| state == SagaState::Parked).ok_or_else(|| not_parked(state))?;
        match self {
            Self::Retry { reason } => Ok(Entry::Resumed { reason: reason.clone() }),
            Self::Resolve { reason } => Ok(Entry::Resolved { reason: reason.clone() }),
            Self::Skip { step, reason } => {
                let name = step_to_skip(saga, step.as_deref())?;
                Ok(Entry::Skipped { name, reason: reason.clone() })
            }
        }
    }
}

fn step_to_skip(saga: &Saga, named: Option<&str>) -> Result<String, Rejection> {
    let failed: Vec<&str> = saga.failed.iter().map(String::as_str).collect();
    let message = match (named, failed.as_slice()) {
        (_, []) => "No step of the saga has failed: retry it, or resolve it.".to_owned(),
        (Some(named), failed) if failed.contains(&named) => return Ok(named.to_owned()),
        (None, [only]) => return Ok((*only).to_owned()),
        (Some(named), failed) => format!("The step {named} has not failed, only {}.", failed.join(", ")),
        (None, failed) => format!("Name one of the steps that failed: {}.", failed.join(", ")),
    };
    Err(Rejection::new("step-not-failed", message))
}

fn not_found(id: &SagaId) -> Rejection {
    Rejection::new("not-found", format!("There is no saga with the id {id}."))
}

fn not_parked(state: SagaState) -> Rejection {
    let message = format!("The saga is {}: only a parked one needs an operator.", state.as_str());
    Rejection::new("saga-not-parked", message)
}

/// Returns the lowest id of a saga that was started at a time or later.
pub(super) fn first_id_at(Time(time_ms): Time) -> String {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
    Uuid::from_bytes(bytes).to_string()
}

/// Returns the time of the event that started a saga, which is part of its id.
fn time_of(id: &SagaId) -> Time {
    let timestamp = Uuid::try_parse(id.as_str()).ok().and_then(|id| id.get_timestamp());
    Time(timestamp.map_or(0, |timestamp| {
        let (seconds, nanoseconds) = timestamp.to_unix();
        seconds * 1_000 + u64::from(nanoseconds) / 1_000_000
    }))
}
