//! The steps of a live run: answers from the journal first, sends the rest, and journals the answers.
//!
//! WebAssembly cannot suspend a run for a month, so a run that must not continue ends with an error,
//! [`Halt`], which traps through the component. The component cannot carry the reason, so it travels beside
//! it:
//!
//! ```text
//! runner.rs                              driver.rs                           component
//! Running::run_code ──────────────────────────────────────────────────────►  run(name, trigger)
//!                                        Driver::take / query / wait  ◄────    steps.step(…)
//!                                          Progress.halt_reason = Some(…)
//!                                          Err(Halt)  ────────────────────►    trap
//! SagaEnd::Halted  ◄──────────────────────────────────────────────────────   the instance is discarded
//!   takes Progress.halt_reason, journals the consequence
//! ```
//!
//! ARCHITECTURE.md, "The way of a halt", lists the consequence of each reason.

use std::pin::pin;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::timeout_at;

use super::entry::{self, AttemptStats, Entry, Wait};
use super::journal::Waiting;
use super::record::{RecordError, written};
use super::replay::{HaltReason, Replay};
use super::retry::Phase;
use super::sender::{Relinquished, Sender, StepResult};
use crate::aggregate::Accepted;
use crate::log::{MAX_PAGE, more_may_follow, version_at};
use crate::model::{CommandId, Json, Recorded, Rejection, Version};
use crate::runtime::{Action, Awaited, Halt, Outcome, Request, Step, Steps};

/// The maximum size of a view that the journal keeps, and the saga gets.
const MAX_VIEW_BYTES: usize = 64 << 10;
/// The maximum size of a query's answer that the journal keeps.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// The steps of one live run.
pub(super) struct Driver {
    pub(super) sender: Sender,
    pub(super) replay: Replay,
    /// True if another process, or an earlier run, may have sent commands that the journal does not have.
    pub(super) resumed: bool,
}

/// Makes the entry of an accepted step.
type AcceptedEntry = fn(String, Action, Outcome, AttemptStats) -> Entry;

/// The answers to steps that were sent, as far as there are any.
#[derive(Default)]
struct Sent {
    entries: Vec<Entry>,
    /// True if a command was accepted without events, so that only the journal knows of it.
    unrecorded: bool,
    /// The name and the error of a step that failed for good.
    failed: Option<(String, String)>,
    relinquished: Option<Relinquished>,
}

impl Driver {
    fn relinquished(&self, _: Relinquished) -> Halt {
        self.replay.halt(HaltReason::Relinquished)
    }

    fn write(&self, entries: &[Entry]) -> Result<(), Halt> {
        let written = self.replay.progress().record.write(entries);
        written.map_err(|error| self.replay.halt(HaltReason::Record(error)))
    }

    /// Waits for an answer. If that takes long, the noted entries are written meanwhile, for the operators.
    async fn flush_if_slow<T>(&self, work: impl Future<Output = T>) -> T {
        let noted_until = self.replay.progress().record.noted_until();
        let Some(deadline) = noted_until else {
            return work.await;
        };
        let mut work = pin!(work);
        match timeout_at(deadline, &mut work).await {
            Ok(answer) => answer,
            Err(_) => {
                self.replay.progress().record.write_noted();
                work.await
            }
        }
    }

    /// Returns the id of the command of a step.
    fn id_of(&self, step: &str) -> CommandId {
        let unique = self.replay.progress().record.saga().map(|saga| saga.unique(step));
        CommandId::of_step(&self.sender.id, unique.as_deref().unwrap_or(step))
    }

    fn phase(&self) -> Phase {
        let pivoted = self.replay.progress().record.saga().is_some_and(|saga| saga.pivoted);
        if pivoted { Phase::AfterPivot } else { Phase::BeforePivot }
    }

    /// Halts a run whose step got no answer: the saga unwinds, or parks after its pivot.
    fn failed_for_good(&self, name: &str, error: &str) -> Halt {
        self.replay.halt(match self.phase() {
            Phase::AfterPivot => {
                let why = format!("the step {name} failed after the pivot: {error}");
                HaltReason::Park(Entry::parked(&why))
            }
            // Clients see this text. The error is for the operator, and is in the journal.
            Phase::BeforePivot | Phase::Undo => {
                let message = format!("The step {name} got no answer in all its attempts.");
                HaltReason::Unwind(Rejection::new("step-failed", message))
            }
        })
    }

    /// Sends the steps that the journal does not have, all at once. Returns the answers to all steps.
    async fn take(
        &self,
        steps: Vec<Step>,
        accepted: AcceptedEntry,
    ) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
        let journaled = steps.iter().map(|step| self.replay.step(step));
        let mut answers = journaled.collect::<Result<Vec<_>, _>>()?;
        let open = steps.into_iter().zip(&mut answers).filter(|(_, answer)| answer.is_none());
        let Sent { entries, unrecorded, failed, relinquished } = self.send(open.collect(), accepted).await?;
        let accepted = answers.iter().all(|answer| matches!(answer, Some(Ok(_))));
        let kept = match (unrecorded, accepted) {
            (true, _) => self.replay.progress().record.write_before_commands(&entries),
            (false, true) => self.replay.progress().record.note(&entries),
            (false, false) => self.replay.progress().record.write(&entries),
        };
        kept.map_err(|error| self.replay.halt(HaltReason::Record(error)))?;
        if let Some(relinquished) = relinquished {
            return Err(self.relinquished(relinquished));
        }
        if let Some((name, error)) = failed {
            return Err(self.failed_for_good(&name, &error));
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Sends steps, and puts the answers where they belong.
    async fn send(
        &self,
        open: Vec<(Step, &mut Option<Result<Outcome, Rejection>>)>,
        accepted: AcceptedEntry,
    ) -> Result<Sent, Halt> {
        let mut sent = Sent::default();
        if open.is_empty() {
            return Ok(sent);
        }
        let pending = self.replay.progress().record.pending_before_commands();
        written(pending).await.map_err(|error| self.replay.halt(HaltReason::Record(error)))?;
        let phase = self.phase();
        let results = open.iter().map(|(step, _)| {
            let id = self.id_of(&step.name);
            self.sender.step(&step.name, phase, self.sender.command(step, id, self.resumed))
        });
        let results = self.flush_if_slow(join_all(results)).await;
        for ((Step { name, action }, answer), result) in open.into_iter().zip(results) {
            match result {
                Ok((StepResult::Accepted(Accepted { version, events, view, .. }), effort)) => {
                    let view = view.filter(|view| view.as_str().len() <= MAX_VIEW_BYTES);
                    let outcome = Outcome { version, view };
                    sent.unrecorded |= events.is_empty();
                    *answer = Some(Ok(outcome.clone()));
                    sent.entries.push(accepted(name, action, outcome, effort));
                }
                Ok((StepResult::Rejected(rejection), effort)) => {
                    *answer = Some(Err(rejection.clone()));
                    sent.entries.push(Entry::StepRejected { name, action, rejection, effort });
                }
                Ok((StepResult::Failed(error), effort)) => {
                    sent.failed = Some((name.clone(), error.clone()));
                    sent.entries.push(Entry::StepFailed { name, action, error, effort });
                }
                Err(relinquished) => sent.relinquished = Some(relinquished),
            }
        }
        Ok(sent)
    }

    /// Returns the end of a wait, as in [`Replay::wait`]. Halts the run until there is one.
    fn wait(&self, name: String, wait: Wait) -> Result<Option<Version>, Halt> {
        if let Some(event) = self.replay.wait(&name, &wait)? {
            return Ok(event);
        }
        let (Wait::Sleep { duration_ms: time_ms } | Wait::Event { timeout_ms: time_ms, .. }) = wait;
        let until_ms = self.sender.inner.deps.clock.now_ms().saturating_add(time_ms);
        self.write(&[Entry::Waiting { name, wait, until_ms }])?;
        Err(self.replay.halt(HaltReason::Wait))
    }
}

#[async_trait]
impl Steps for Driver {
    async fn steps(&mut self, steps: Vec<Step>) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
        let done = |name, action, outcome, effort| Entry::StepDone { name, action, outcome, effort };
        self.take(steps, done).await
    }

    async fn pivot(&mut self, step: Step) -> Result<Result<Outcome, Rejection>, Halt> {
        self.replay.check_pivot(&step.name)?;
        let pivoted = |name, action, outcome, effort| Entry::Pivoted { name, action, outcome, effort };
        let answers = self.take(vec![step], pivoted).await?;
        answers.into_iter().next().ok_or(Halt)
    }

    async fn query(&mut self, name: String, request: Request) -> Result<Result<Json, Rejection>, Halt> {
        let asked = entry::Request::from(&request);
        if let Some(answer) = self.replay.query(&name, &asked)? {
            return Ok(answer);
        }
        let answered = self.flush_if_slow(self.sender.ask(&name, self.phase(), &request)).await;
        let (result, effort) = answered.map_err(|relinquished| self.relinquished(relinquished))?;
        let answer = match result {
            StepResult::Accepted(answer) if answer.as_str().len() > MAX_ANSWER_BYTES => {
                let why = format!(
                    "the answer of {} to {} has {} bytes, and a journal keeps {MAX_ANSWER_BYTES} at most",
                    asked.service,
                    asked.query,
                    answer.as_str().len()
                );
                return Err(self.replay.halt(HaltReason::Park(Entry::parked(&why))));
            }
            StepResult::Accepted(answer) => Ok(answer),
            StepResult::Rejected(rejection) => Err(rejection),
            StepResult::Failed(error) => {
                let saga = &self.sender.id;
                tracing::warn!(%saga, step = name, error, "no answer to a query in all attempts; giving up");
                return Err(self.failed_for_good(&name, &error));
            }
        };
        self.write(&[Entry::QueryAnswered { name, request: asked, answer: answer.clone(), effort }])?;
        Ok(answer)
    }

    async fn sleep(&mut self, name: String, duration_ms: u64) -> Result<(), Halt> {
        self.wait(name, Wait::Sleep { duration_ms }).map(|_| ())
    }

    async fn wait_for(
        &mut self,
        name: String,
        Awaited { stream, events, after }: Awaited,
        timeout_ms: u64,
    ) -> Result<Option<Recorded>, Halt> {
        let wait = Wait::Event { stream: stream.clone(), events, timeout_ms, after };
        match self.wait(name, wait)? {
            Some(version) => self.replay.event(&*self.sender.inner.deps.log, &stream, version).await,
            None => Ok(None),
        }
    }

    async fn continue_as_new(&mut self, progress: Json) -> Halt {
        let continued = self.replay.check_continue_as_new();
        match continued.and_then(|()| self.write(&[Entry::ContinuedAsNew { progress }])) {
            Ok(()) => self.replay.halt(HaltReason::ContinueAsNew),
            Err(halt) => halt,
        }
    }

    fn progress(&self) -> Option<Json> {
        self.replay.progress_so_far()
    }
}

/// Returns the version of the first event that a saga waits for, or `None` if it is not in the log yet.
pub(super) async fn awaited(
    sender: &Sender,
    trigger: &Recorded,
    waiting: &Waiting,
) -> Result<Option<Version>, RecordError> {
    let Wait::Event { stream, events, after, .. } = &waiting.wait else {
        return Ok(None);
    };
    let log = &*sender.inner.deps.log;
    let mut after = version_at(log, stream, trigger.position).await?.max(after.unwrap_or(Version::START));
    loop {
        let page = log.read(stream, after, MAX_PAGE).await?;
        let matches = |event: &&Recorded| events.iter().any(|name| **name == *event.name.as_str());
        if let Some(event) = page.iter().find(matches) {
            return Ok(Some(event.version));
        }
        if !more_may_follow(&page, MAX_PAGE) {
            return Ok(None);
        }
        after = page.last().map_or(after, |last| last.version);
    }
}
