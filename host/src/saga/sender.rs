//! Sends the commands and questions of one saga, as often as it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Shared;
use super::entry::Effort;
use super::index::Open;
use super::record::actor;
use super::retry::Phase;
use crate::aggregate::{Accepted, CallError};
use crate::clock::millis;
use crate::cluster::Lease;
use crate::model::{
    Command, CommandId, CommandName, Intent, Json, Origin, Recorded, Rejection, SagaId, SagaName, StreamId,
};
use crate::runtime::{AskFailure, Request};

/// Characters of a fault's cause that the journal keeps.
const MAX_CAUSE: usize = 300;
/// The longest wait while the host is in trouble, which may be the same for all of its sagas: so late they go on at most when it has
/// passed.
const LONGEST_HELD: Duration = Duration::from_secs(1);

/// The saga does not go on here for now: the host is stopping, or another one has the saga.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the saga does not go on on this host")]
pub(super) struct NotHere;

/// What became of a command or a question after all attempts.
pub(super) enum Fate<T> {
    Accepted(T),
    Refused(Rejection),
    /// It got no answer. The last attempt's error, as a sentence's part.
    Failed(String),
}

/// What became of one attempt.
enum Attempt<T> {
    Over(Fate<T>),
    /// The host is in trouble, not the step: it does not count as an attempt.
    Held(String),
}

/// Acts in the name of one saga.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) shared: Arc<Shared>,
    pub(super) id: SagaId,
    /// The saga's name.
    pub(super) saga: SagaName,
    origin: Origin,
    /// Under which the journal was read.
    lease: Option<Lease>,
}

impl Sender {
    /// `lease`: under which the journal was read.
    pub(super) fn new(shared: &Arc<Shared>, open: &Open, trigger: &Recorded, lease: Option<Lease>) -> Self {
        let (id, saga) = (open.id.clone(), open.name.clone());
        let origin = Origin {
            actor: actor(&id),
            correlation_id: trigger.meta.correlation_id.clone(),
            causation_id: Some(trigger.id().into()),
        };
        Self { shared: shared.clone(), id, saga, origin, lease }
    }

    /// Sends the command of a step until it is accepted or refused. From the pivot on, and to undo, only accepting counts.
    pub(super) async fn step(
        &self,
        name: &str,
        phase: Phase,
        command: Command,
    ) -> Result<(Fate<Accepted>, Effort), NotHere> {
        let sent = self.persist(name, phase, |attempt| {
            let mut command = command.clone();
            command.repeatable |= attempt > 1;
            self.attempt(command, phase).boxed()
        });
        let (fate, effort) = sent.await?;
        let outcome = match &fate {
            Fate::Accepted(_) => "done",
            Fate::Refused(_) => "refused",
            Fate::Failed(_) => "failed",
        };
        let counter = match phase {
            Phase::BeforePivot | Phase::AfterPivot => "kontor_saga_steps_total",
            Phase::Undo => "kontor_saga_undos_total",
        };
        metrics::counter!(counter, "saga" => self.saga.to_string(), "outcome" => outcome).increment(1);
        Ok((fate, effort))
    }

    async fn attempt(&self, command: Command, phase: Phase) -> Result<Attempt<Accepted>, NotHere> {
        Ok(match self.shared.deps.commands.submit(command).await {
            Ok(accepted) => Attempt::Over(Fate::Accepted(accepted)),
            Err(CallError::Rejected(rejection)) if phase == Phase::BeforePivot => {
                Attempt::Over(Fate::Refused(rejection))
            }
            Err(CallError::ShuttingDown) => return Err(NotHere),
            Err(error @ (CallError::Busy { .. } | CallError::Append(_) | CallError::Read(_))) => {
                Attempt::Held(error.to_string())
            }
            Err(CallError::Fault(fault)) => {
                let cause: String = fault.cause().chars().take(MAX_CAUSE).collect();
                Attempt::Over(Fate::Failed(format!("{fault}: {cause}")))
            }
            Err(error) => Attempt::Over(Fate::Failed(error.to_string())),
        })
    }

    /// Asks a service until it answers.
    pub(super) async fn ask(
        &self,
        name: &str,
        phase: Phase,
        request: &Request,
    ) -> Result<(Fate<Json>, Effort), NotHere> {
        let asked = self.persist(name, phase, |_| {
            let answer = self.shared.deps.ask.ask(request.clone(), 1);
            async move {
                Ok(Attempt::Over(match answer.await {
                    Ok(answer) => Fate::Accepted(answer),
                    Err(AskFailure::Rejected(rejection)) => Fate::Refused(rejection),
                    Err(AskFailure::Unavailable(why)) => Fate::Failed(why),
                }))
            }
            .boxed()
        });
        asked.await
    }

    async fn persist<'a, T>(
        &self,
        name: &str,
        phase: Phase,
        mut attempt: impl FnMut(u32) -> BoxFuture<'a, Result<Attempt<T>, NotHere>>,
    ) -> Result<(Fate<T>, Effort), NotHere> {
        let retry = self.shared.deps.retries.of(self.saga.as_str(), name, phase);
        let started = Instant::now();
        let (mut failures, mut attempts, mut held) = (0, 0, 0);
        loop {
            self.shared.goes_on(&self.id, self.lease)?;
            attempts += 1;
            let (counts, error) = match attempt(attempts).await? {
                Attempt::Over(Fate::Failed(error)) => (true, error),
                Attempt::Held(error) => (false, error),
                Attempt::Over(fate) => return Ok((fate, effort(attempts, started))),
            };
            failures += u32::from(counts);
            held = if counts { 0 } else { held + 1 };
            tracing::warn!(saga = %self.id, step = name, attempts, "a step of {} failed: {error}", self.saga);
            if failures >= retry.attempts {
                return Ok((Fate::Failed(error), effort(attempts, started)));
            }
            metrics::counter!("kontor_saga_retries_total", "saga" => self.saga.to_string()).increment(1);
            let id = format!("{}/{name}", self.id);
            let wait =
                if counts { retry.wait(failures, &id) } else { retry.wait(held, &id).min(LONGEST_HELD) };
            self.shared.pause(wait).await?;
        }
    }

    /// The command of a step. `repeatable`: whether it may have been sent before.
    pub(super) fn command(&self, step: &crate::runtime::Step, repeatable: bool) -> Command {
        Command {
            id: CommandId::of_step(&self.id, &step.name),
            repeatable,
            stream: step.stream.clone(),
            name: step.command.as_str().into(),
            payload: step.payload.clone(),
            intent: Intent::Decide,
            expected_version: None,
            origin: self.origin.clone(),
        }
    }

    /// The command that undoes what the command `undone` of a step did.
    pub(super) fn undo(
        &self,
        step: &str,
        stream: StreamId,
        command: CommandName,
        undone: CommandId,
        reason: Rejection,
    ) -> Command {
        Command {
            id: CommandId::of_undo(&self.id, step),
            repeatable: true,
            stream,
            name: command,
            payload: Json::empty_object(),
            intent: Intent::Compensate { undone, reason },
            expected_version: None,
            origin: self.origin.clone(),
        }
    }
}

fn effort(attempts: u32, started: Instant) -> Effort {
    Effort { attempts, took_ms: millis(started.elapsed()) }
}
