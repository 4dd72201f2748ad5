//! Sends the commands and queries of one saga, and retries them.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tracing::Instrument as _;

use super::entry::AttemptStats;
use super::index::SagaHandle;
use super::inner::Inner;
use super::retry::Phase;
use super::verdict::Failure;
use crate::aggregate::{Accepted, CommandError};
use crate::clock::{Stopwatch, millis};
use crate::cluster::Lease;
use crate::error::Chain;
use crate::log::AppendError;
use crate::model::{
    AppendChain, Caller, Command, CommandId, CommandName, Intent, Json, Origin, Precondition, Recorded,
    Rejection, SagaId, SagaName, StreamId,
};
use crate::runtime::{AskFailure, Request, Step};

/// The characters of an error that the journal keeps: enough for the message of a panic.
const MAX_CAUSE: usize = 400;
/// The longest wait between attempts that the host itself holds up, as it may for all of its sagas at once:
/// they resume this late at most when it has recovered.
const LONGEST_HELD: Duration = Duration::from_secs(1);

/// The error of a saga that does not continue on this host for now: the host is stopping, or another one has
/// the saga.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the saga does not continue on this host")]
pub(super) struct Relinquished;

/// The result of a command or a query after all attempts.
pub(super) enum StepResult<T> {
    Accepted(T),
    Rejected(Rejection),
    /// There was no answer. The text is the error of the last attempt, as a part of a sentence.
    Failed(String),
}

/// The result of one attempt.
enum Attempt<T> {
    Over(StepResult<T>),
    /// There was no answer. The text is the error, as a part of a sentence.
    Failed(Failure, String),
}

/// Sends in the name of one saga.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) inner: Arc<Inner>,
    pub(super) id: SagaId,
    /// The saga's name.
    pub(super) saga: SagaName,
    origin: Origin,
    /// The lease under which the journal was read.
    lease: Option<Lease>,
    /// The chain of the journal.
    journal: AppendChain,
}

impl Sender {
    /// `caller`: the one for whom the saga acts. `lease`: the one under which the journal was read.
    /// `journal`: the chain of the journal.
    pub(super) fn new(
        inner: &Arc<Inner>,
        handle: &SagaHandle,
        trigger: &Recorded,
        caller: Caller,
        (lease, journal): (Option<Lease>, AppendChain),
    ) -> Self {
        let (id, saga) = (handle.id.clone(), handle.name.clone());
        let origin = Origin {
            caller,
            correlation_id: trigger.meta.correlation_id.clone(),
            causation_id: Some(trigger.id().into()),
        };
        Self { inner: inner.clone(), id, saga, origin, lease, journal }
    }

    /// Sends the command of a step until it is accepted or rejected. After the pivot, and for an undo, a
    /// rejection is retried like a failure.
    pub(super) async fn step(
        &self,
        name: &str,
        phase: Phase,
        command: Command,
    ) -> Result<(StepResult<Accepted>, AttemptStats), Relinquished> {
        let sent = self.persist(name, phase, |attempt| {
            let mut command = command.clone();
            command.repeatable |= attempt > 1;
            self.attempt(command, phase).boxed()
        });
        let (result, stats) = sent.instrument(tracing::info_span!("step", name)).await?;
        let outcome = match &result {
            StepResult::Accepted(_) => "done",
            StepResult::Rejected(_) => "refused",
            StepResult::Failed(_) => "failed",
        };
        let counter = match phase {
            Phase::BeforePivot | Phase::AfterPivot => "kontor_saga_steps_total",
            Phase::Undo => "kontor_saga_undos_total",
        };
        metrics::counter!(counter, "saga" => self.saga.to_string(), "outcome" => outcome).increment(1);
        Ok((result, stats))
    }

    async fn attempt(&self, command: Command, phase: Phase) -> Result<Attempt<Accepted>, Relinquished> {
        Ok(match self.inner.deps.commands.submit(command).await {
            Ok(accepted) => Attempt::Over(StepResult::Accepted(accepted)),
            Err(CommandError::Append(AppendError::Unfounded)) => {
                // The journal in the log is behind this run, which begins again with the journal.
                self.inner.roster().lose(&self.id);
                return Err(Relinquished);
            }
            Err(error) if phase == Phase::BeforePivot => match error.into_rejection() {
                Ok(rejection) => Attempt::Over(StepResult::Rejected(rejection)),
                Err(error) => Self::failed(&error)?,
            },
            Err(error) => Self::failed(&error)?,
        })
    }

    fn failed(error: &CommandError) -> Result<Attempt<Accepted>, Relinquished> {
        match Failure::of(error) {
            Failure::Stopping => Err(Relinquished),
            failure => Ok(Attempt::Failed(failure, sentence(error))),
        }
    }

    /// Sends a query until it is answered.
    pub(super) async fn ask(
        &self,
        name: &str,
        phase: Phase,
        request: &Request,
    ) -> Result<(StepResult<Json>, AttemptStats), Relinquished> {
        let asked = self.persist(name, phase, |_| {
            let answer = self.inner.deps.ask.ask(&self.origin.caller, request.clone(), 1);
            async move {
                Ok(match answer.await {
                    Ok(answer) => Attempt::Over(StepResult::Accepted(answer)),
                    Err(AskFailure::Rejected(rejection)) => Attempt::Over(StepResult::Rejected(rejection)),
                    Err(AskFailure::Unavailable(why)) => Attempt::Failed(Failure::Attempt, why),
                })
            }
            .boxed()
        });
        asked.await
    }

    /// Makes attempts, with the waits of the configured limits, until one has a result that is not a failure.
    async fn persist<'a, T>(
        &self,
        name: &str,
        phase: Phase,
        mut attempt: impl FnMut(u32) -> BoxFuture<'a, Result<Attempt<T>, Relinquished>>,
    ) -> Result<(StepResult<T>, AttemptStats), Relinquished> {
        let retry = self.inner.deps.retries.of(self.saga.as_str(), name, phase);
        let started = Stopwatch::start();
        let (mut failures, mut attempts, mut held) = (0, 0, 0);
        loop {
            self.inner.check_ownership(&self.id, self.lease)?;
            attempts += 1;
            let (failure, error) = match attempt(attempts).await? {
                Attempt::Failed(failure, error) => (failure, error),
                Attempt::Over(result) => return Ok((result, stats(attempts, started))),
            };
            let counts = failure != Failure::Passing;
            failures += u32::from(counts);
            held = if counts { 0 } else { held + 1 };
            tracing::warn!(
                saga = %self.id, name = %self.saga, step = name, attempts, error,
                "an attempt of a step failed; it is retried as long as the limits allow"
            );
            if failure == Failure::Final || failures >= retry.attempts {
                return Ok((StepResult::Failed(error), stats(attempts, started)));
            }
            metrics::counter!("kontor_saga_retries_total", "saga" => self.saga.to_string()).increment(1);
            let id = format!("{}/{name}", self.id);
            let wait =
                if counts { retry.wait(failures, &id) } else { retry.wait(held, &id).min(LONGEST_HELD) };
            self.inner.pause(wait).await?;
        }
    }

    /// Returns the command of a step. `repeatable`: true if it may have been sent before.
    pub(super) fn command(&self, step: &Step, id: CommandId, repeatable: bool) -> Command {
        Command {
            id,
            repeatable,
            keyed: false,
            stream: step.action.stream.clone(),
            name: step.action.command.as_str().into(),
            payload: step.action.payload.clone(),
            intent: Intent::Decide,
            precondition: Precondition::default(),
            origin: self.origin.clone(),
            journal: Some(self.journal),
        }
    }

    /// Returns the command that undoes the command `undone` of a step. `step`: its name among those of
    /// all runs.
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
            keyed: false,
            stream,
            name: command,
            payload: Json::empty_object(),
            intent: Intent::Compensate { undone, reason },
            precondition: Precondition::default(),
            origin: self.origin.clone(),
            journal: Some(self.journal),
        }
    }
}

/// Returns an error as a part of a sentence for the journal.
fn sentence(error: &CommandError) -> String {
    let text = match error {
        CommandError::Fault(fault) => format!("{fault}: {}", fault.cause()),
        error => Chain(error).to_string(),
    };
    text.chars().take(MAX_CAUSE).collect()
}

fn stats(attempts: u32, started: Stopwatch) -> AttemptStats {
    AttemptStats { attempts, took_ms: millis(started.elapsed()) }
}
