//! What an operator sees of the sagas and does to them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::entry::Entry;
use super::index::Listed;
use super::journal::{Saga, SagaState};
use super::runner;
use super::timeline::Timeline;
use super::{CATCH_UP, Open, SagaStatus, Sagas, Shared, record, unreadable};
use crate::aggregate::CallError;
use crate::clock::Time;
use crate::log::ReadError;
use crate::model::{Actor, Rejection, SAGA, SagaId, SagaName, ServiceName, StreamId};

/// Which sagas to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<SagaState>,
    /// The saga's name: `place-order`.
    pub name: Option<String>,
    /// Only sagas that are older than this one.
    pub before: Option<String>,
    pub limit: usize,
}

/// A saga in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    pub id: SagaId,
    pub service: ServiceName,
    pub name: SagaName,
    pub state: SagaState,
    /// The stream of the event that started it: `order/0199…`.
    pub stream: String,
    /// When that event was recorded.
    pub started: Time,
    /// Why it is parked, or cannot run at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The sagas in one of the states that are not an end.
#[derive(Clone, Debug, PartialEq)]
pub struct Census {
    pub state: SagaState,
    pub sagas: u64,
    /// How long ago the oldest of them was started; zero if there is none.
    pub oldest: Duration,
}

/// What a person does about a parked saga.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Has it try again what failed.
    Retry {},
    /// Leaves out the step that failed, or the undo, and has it go on. The step may be left unnamed if only one failed.
    Skip { step: Option<String>, reason: String },
    /// Ends it: a person has seen to everything by hand.
    Resolve { reason: String },
}

impl Sagas {
    /// The newest sagas first. Knows all events that are in the log by now, unless there are more sagas than can run: an
    /// operator wants to see those that are in the way.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Overview>, CallError> {
        // Err: behind.
        let _ = self.shared.caught_up().await;
        let Filter { state, name, before, limit } = filter;
        let listed = self.shared.index.list(state, name, before, limit).await.map_err(index_error)?;
        let overview = |listed: Listed| Overview {
            started: time_of(&listed.open.id),
            id: listed.open.id,
            service: listed.open.service,
            name: listed.open.name,
            state: listed.state,
            stream: listed.stream,
            why: listed.why,
        };
        Ok(listed.into_iter().map(overview).collect())
    }

    /// The sagas that have not ended: one item for each state. Like [`Sagas::list`], it knows all events by now if it can.
    pub async fn census(&self) -> Result<Vec<Census>, CallError> {
        // Err: behind.
        let _ = self.shared.caught_up().await;
        let counted = self.shared.index.census().await.map_err(index_error)?;
        let now_ms = self.shared.deps.clock.now_ms();
        let census = |state: SagaState| {
            let found = counted.iter().find(|(counted, ..)| *counted == state);
            let (sagas, started_ms) = found.map_or((0, now_ms), |(_, sagas, id)| (*sagas, time_of(id).0));
            Census { state, sagas, oldest: Duration::from_millis(now_ms.saturating_sub(started_ms)) }
        };
        Ok(SagaState::ALL.into_iter().filter(|state| !state.ended()).map(census).collect())
    }

    /// How a saga went. Knows all events that are in the log by now. Rejected with `not-found`.
    pub async fn timeline(&self, id: &SagaId) -> Result<Timeline, CallError> {
        let Listed { open, why, .. } = self.find(id).await?;
        let trigger = runner::trigger(&self.shared, &open).await.map_err(runner::call_error)?;
        let folded = async {
            let journal = record::events(&*self.shared.deps.log, &StreamId::new(SAGA, id.as_str())?).await?;
            Timeline::of(&open, &trigger, &journal)
        };
        let timeline = folded.await.map_err(unreadable)?;
        // One that cannot run says so only in the index.
        Ok(Timeline { why: timeline.why.or(why), ..timeline })
    }

    /// Does something about a parked saga. It is on disk when this returns, and the saga goes on. Rejected with `not-found`,
    /// `saga-not-parked` or `step-not-failed`.
    pub async fn act(&self, id: &SagaId, act: Act, actor: &str) -> Result<SagaStatus, CallError> {
        let open = Arc::new(self.find(id).await?.open);
        self.claim(&open).await?;
        // On a task of its own: a caller who stops waiting must not leave the saga to nobody.
        let acting = tokio::spawn(self.shared.clone().act(open, act, actor.into()));
        acting.await.unwrap_or(Err(CallError::ShuttingDown))?;
        Ok(self.journaled(id).await?.ok_or_else(|| not_found(id))?)
    }

    async fn find(&self, id: &SagaId) -> Result<Listed, CallError> {
        // Err: behind. Most sagas that somebody asks for have been known for longer than that.
        let caught_up = self.shared.caught_up().await;
        match self.shared.index.find(id).await.map_err(index_error)? {
            Some(saga) => Ok(saga),
            None => Err(caught_up.err().unwrap_or_else(|| not_found(id).into())),
        }
    }

    /// Keeps anybody else from running the saga.
    async fn claim(&self, open: &Arc<Open>) -> Result<(), CallError> {
        let deadline = Instant::now() + CATCH_UP;
        let mut in_time = true;
        loop {
            let mut settling = self.shared.settling(&open.id);
            if self.shared.claim(open) {
                return Ok(());
            }
            let state = self.journaled(&open.id).await?.map_or(SagaState::Running, |status| status.state);
            if state != SagaState::Parked {
                return Err(not_parked(state).into());
            }
            if !in_time {
                return Err(CallError::Busy { queue: "the queue of acts on the saga" });
            }
            // Whoever holds a saga whose journal says that it is parked is about to let go of it: its run, or another act.
            in_time = timeout_at(deadline, &mut settling.told).await.is_ok();
        }
    }
}

impl Shared {
    /// Does something about a saga that is kept from running, and lets go of it.
    async fn act(self: Arc<Self>, open: Arc<Open>, act: Act, actor: Actor) -> Result<(), CallError> {
        let acted = runner::act(&self, &open, actor.clone(), |saga, _| act.entry(saga)).await;
        let acted = acted.map_err(runner::call_error).and_then(|acted| Ok(acted?));
        if acted.is_ok() {
            tracing::info!(saga = %open.id, %actor, ?act, "a person has acted on a saga");
        }
        if self.let_go(&open.id) || acted.is_ok() {
            // Err: the host is stopping, and the saga goes on when it starts again.
            let _ = self.spawn(open, None).await;
        }
        acted
    }
}

impl Act {
    /// The journal's entry, or why the saga is in no state for it.
    fn entry(&self, saga: Option<&Saga>) -> Result<Entry, Rejection> {
        let state = saga.map_or(SagaState::Running, |saga| saga.state);
        let saga = saga.filter(|_| state == SagaState::Parked).ok_or_else(|| not_parked(state))?;
        match self {
            Self::Retry {} => Ok(Entry::Resumed {}),
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
    let message = format!("The saga is {}: only a parked one needs a person.", state.as_str());
    Rejection::new("saga-not-parked", message)
}

pub(super) fn index_error(error: rusqlite::Error) -> CallError {
    CallError::Read(ReadError(Arc::new(error)))
}

/// A saga's id holds the time of the event that started it.
fn time_of(id: &SagaId) -> Time {
    let timestamp = Uuid::try_parse(id.as_str()).ok().and_then(|id| id.get_timestamp());
    Time(timestamp.map_or(0, |timestamp| {
        let (seconds, nanoseconds) = timestamp.to_unix();
        seconds * 1_000 + u64::from(nanoseconds) / 1_000_000
    }))
}
