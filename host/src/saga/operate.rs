//! What an operator sees of the sagas and does to them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entry::Entry;
use super::journal::{Saga, SagaState};
use super::runner::{self, RunError};
use super::{CATCH_UP, Open, Place, SagaId, SagaStatus, Sagas, Shared, unreadable};
use crate::error::CallError;

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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overview {
    pub id: SagaId,
    pub service: Arc<str>,
    pub name: Arc<str>,
    pub state: SagaState,
    /// The stream of the event that started it: `order/0199…`.
    pub stream: String,
    /// When that event was recorded, in milliseconds since 1970-01-01 UTC.
    #[serde(skip)]
    pub since_ms: u64,
    /// Why it is parked, or cannot run at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The sagas that have not ended, by state.
#[derive(Clone, Debug, PartialEq)]
pub struct Census {
    pub state: SagaState,
    pub sagas: u64,
    /// When the oldest of them was started, in milliseconds since 1970-01-01 UTC.
    pub oldest_ms: u64,
}

/// What a person does about a parked saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    /// Has it try again what failed.
    Retry {},
    /// Leaves out the step that failed, or the undo, and has it go on. The step may be left unnamed if only one failed.
    Skip { step: Option<String>, reason: String },
    /// Ends it: a person has seen to everything by hand.
    Resolve { reason: String },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    #[error("There is no saga with the id {0}.")]
    NotFound(String),
    /// It is in no state for that. The text is a sentence.
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Sagas {
    /// The newest sagas first. Knows all events that are in the log by now, unless there are more sagas than can run: an
    /// operator wants to see those that are in the way.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Overview>, CallError> {
        // Err: behind.
        let _ = self.shared.caught_up().await;
        let Filter { state, name, before, limit } = filter;
        let listed = self.shared.index.list(state, name, before, limit).await.map_err(index_error)?;
        let overview = |listed: super::index::Listed| Overview {
            since_ms: time_of(&listed.open.id),
            id: listed.open.id,
            service: listed.open.service,
            name: listed.open.name,
            state: listed.state,
            stream: listed.stream,
            why: listed.why,
        };
        Ok(listed.into_iter().map(overview).collect())
    }

    /// The sagas that have not ended, as far as events have been looked at.
    pub async fn census(&self) -> Result<Vec<Census>, CallError> {
        let counted = self.shared.index.census().await.map_err(index_error)?;
        let census = |(state, sagas, oldest): (SagaState, u64, SagaId)| Census {
            state,
            sagas,
            oldest_ms: time_of(&oldest),
        };
        Ok(counted.into_iter().map(census).collect())
    }

    /// Does something about a parked saga. It is on disk when this returns, and the saga goes on.
    pub async fn act(&self, id: &str, act: Act, actor: &str) -> Result<SagaStatus, OperateError> {
        // Err: behind. Most sagas that are parked have been known for longer than that.
        let _ = self.shared.caught_up().await;
        let open = self.shared.index.find(id).await.map_err(index_error)?;
        let open = Arc::new(open.ok_or_else(|| OperateError::NotFound(id.to_owned()))?);
        self.claim(&open).await?;
        // On a task of its own: a caller who stops waiting must not leave the saga to nobody.
        let acting = tokio::spawn(self.shared.clone().act(open, act, actor.into()));
        acting.await.unwrap_or(Err(CallError::ShuttingDown.into()))?;
        let status = self.journaled(id).await?;
        status.ok_or_else(|| OperateError::NotFound(id.to_owned()))
    }

    /// Keeps anybody else from running the saga.
    async fn claim(&self, open: &Arc<Open>) -> Result<(), OperateError> {
        let settled = self.shared.settled(&open.id);
        if self.shared.claim(open) {
            return Ok(());
        }
        let status = self.journaled(&open.id).await?;
        let state = status.map_or(SagaState::Running, |status| status.state);
        if state != SagaState::Parked {
            return Err(OperateError::Conflict(not_parked(state)));
        }
        // One whose journal says that it is parked is about to let go. Either way the next line says whether it has.
        let _ = tokio::time::timeout(CATCH_UP, settled).await;
        if self.shared.claim(open) {
            return Ok(());
        }
        Err(OperateError::Conflict(not_parked(SagaState::Running)))
    }
}

impl Shared {
    /// Does something about a saga that is kept from running, and lets go of it.
    async fn act(self: Arc<Self>, open: Arc<Open>, act: Act, actor: Arc<str>) -> Result<(), OperateError> {
        let acted = runner::act(&self, &open, actor.clone(), |saga| act.entry(saga)).await;
        let acted = acted.map_err(|error| match error {
            RunError::Record(error) => unreadable(error).into(),
            error => OperateError::Conflict(format!("It cannot be acted on: {error}.")),
        });
        let acted = acted.and_then(|acted| acted.map_err(OperateError::Conflict));
        if acted.is_ok() {
            tracing::info!(saga = %open.id, %actor, ?act, "a person has acted on a saga");
        }
        let kept = self.under_way().remove(&open.id);
        // What it waits for may have come while it could not be woken.
        let called = kept.is_some_and(|kept| kept.place == Place::TakenAndCalled);
        if acted.is_ok() || called {
            // Err: the host is stopping, and the saga goes on when it starts again.
            let _ = self.spawn(open).await;
        }
        acted
    }
}

impl Act {
    /// The journal's entry, or why the saga is in no state for it.
    fn entry(&self, saga: &Saga) -> Result<Entry, String> {
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

fn step_to_skip(saga: &Saga, named: Option<&str>) -> Result<String, String> {
    let failed: Vec<&str> = saga.failed.iter().map(String::as_str).collect();
    match (named, failed.as_slice()) {
        (_, []) => Err("No step of it has failed: it can be retried or resolved.".to_owned()),
        (Some(named), failed) if failed.contains(&named) => Ok(named.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (_, failed) => Err(format!("Name one of the steps that failed: {}.", failed.join(", "))),
    }
}

pub(super) fn not_parked(state: SagaState) -> String {
    format!("It is {}: only a parked saga needs a person.", state.as_str())
}

fn index_error(error: rusqlite::Error) -> CallError {
    CallError::Read(crate::log::ReadError(Arc::new(error)))
}

/// A saga's id holds the time of the event that started it.
fn time_of(id: &str) -> u64 {
    let timestamp = Uuid::try_parse(id).ok().and_then(|id| id.get_timestamp());
    timestamp.map_or(0, |timestamp| {
        let (seconds, nanoseconds) = timestamp.to_unix();
        seconds * 1_000 + u64::from(nanoseconds) / 1_000_000
    })
}
