//! Takes the steps of one run: answers what the journal has, sends the rest through dispatch, and journals the answers.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::watch;

use super::SagaId;
use super::journal::{self, Action, Answered, Caused, Entry};
use super::record::{Record, RecordError};
use crate::dispatch::{Accepted, Dispatch};
use crate::error::CallError;
use crate::model::{Command, CommandId, Intent, Json, Origin, Recorded, Rejection, StreamId, hash_prefix};
use crate::runtime::{Ask, AskFailure, Awaited, Halt, Outcome, Request, Step, Steps};

/// How often a step that fails is tried before the saga unwinds, or parks if it may not unwind.
const MAX_ATTEMPTS: u32 = 6;
/// The wait before the second attempt; it doubles from attempt to attempt.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why a run was halted.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A step failed for good, and what was done is to be undone.
    Unwind(Rejection),
    /// A person has to look at it.
    Park(String),
    /// The host is stopping: the saga goes on when it starts again.
    Stopping,
    /// The journal cannot be read or written now.
    Record(RecordError),
}

/// Sends the commands of one saga.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) dispatch: Dispatch,
    pub(super) saga: SagaId,
    pub(super) origin: Origin,
    pub(super) stopping: watch::Receiver<bool>,
}

/// Why a command got neither done nor refused.
pub(super) enum GaveUp {
    Stopping,
    Failed(String),
}

impl Sender {
    pub(super) fn origin(saga: &SagaId, trigger: &Recorded) -> Origin {
        Origin {
            actor: format!("saga:{saga}").into(),
            correlation_id: trigger.meta.correlation_id.clone(),
            causation_id: Some(trigger.id().into()),
        }
    }

    /// Sends a command until it is accepted or refused. `insist`: a rejection is tried again like a failure.
    pub(super) async fn send(
        &self,
        mut command: Command,
        insist: bool,
    ) -> Result<Result<Accepted, Rejection>, GaveUp> {
        let mut failures = 0;
        loop {
            if *self.stopping.borrow() {
                return Err(GaveUp::Stopping);
            }
            let error = match self.dispatch.submit(command.clone()).await {
                Ok(accepted) => return Ok(Ok(accepted)),
                Err(CallError::Rejected(rejection)) if !insist => return Ok(Err(rejection)),
                Err(CallError::ShuttingDown) => return Err(GaveUp::Stopping),
                Err(error) => error,
            };
            // A full queue and a log that does not answer are troubles of the host, not of the step: they pass.
            let counts = !matches!(error, CallError::Busy { .. } | CallError::Append(_) | CallError::Read(_));
            failures += u32::from(counts);
            tracing::warn!(saga = %self.saga, command = %command.id, failures, "a step failed: {error}");
            if failures >= MAX_ATTEMPTS {
                return Err(GaveUp::Failed(error.to_string()));
            }
            command.repeatable = true;
            self.pause(&command.id, failures.max(1)).await?;
        }
    }

    /// Waits before the next attempt, for a time that differs from saga to saga.
    pub(super) async fn pause(&self, id: &CommandId, failures: u32) -> Result<(), GaveUp> {
        let wait = FIRST_WAIT.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_WAIT);
        let [jitter] = hash_prefix::<1>(&[id.as_str().as_bytes(), &failures.to_le_bytes()]);
        let wait = wait.mul_f64(0.5 + f64::from(jitter) / 512.0);
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            _ = stopping.wait_for(|stopping| *stopping) => Err(GaveUp::Stopping),
        }
    }
}

/// The steps of one run.
pub(super) struct Driver {
    pub(super) sender: Sender,
    pub(super) ask: Arc<dyn Ask>,
    pub(super) record: Arc<Mutex<Record>>,
    /// Set when the run is halted.
    pub(super) verdict: Arc<Mutex<Option<Verdict>>>,
    /// Whether another process, or an earlier run, may have sent what the journal does not have.
    pub(super) resumed: bool,
}

impl Driver {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn halt(&self, verdict: Verdict) -> Halt {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        Halt
    }

    fn write(&self, entries: &[Entry]) -> Result<(), Halt> {
        self.record().write(entries).map_err(|error| self.halt(Verdict::Record(error)))
    }

    /// What the journal has under a name, if the same was asked.
    fn journaled(&self, name: &str) -> Option<Answered> {
        self.record().saga().and_then(|saga| saga.answered.get(name).cloned())
    }

    fn pivoted(&self) -> bool {
        self.record().saga().is_some_and(|saga| saga.pivoted)
    }

    /// The run asks for something else than it did before: it would not be the same saga any more.
    fn diverged(&self, name: &str, journaled: &Answered, asked: &impl std::fmt::Debug) -> Halt {
        self.halt(Verdict::Park(format!(
            "the run diverged at {name}: the journal has {journaled:?}, the component asked for {asked:?}"
        )))
    }

    fn journaled_step(&self, step: &Step) -> Result<Option<Result<journal::Outcome, Rejection>>, Halt> {
        let asked = Action::from(step);
        match self.journaled(&step.name) {
            None => Ok(None),
            Some(Answered::Step { action, answer }) if action == asked => Ok(Some(answer)),
            Some(other) => Err(self.diverged(&step.name, &other, &asked)),
        }
    }

    fn command(&self, step: &Step) -> Command {
        Command {
            id: CommandId::of_step(&self.sender.saga, &step.name),
            repeatable: self.resumed,
            stream: step.stream.clone(),
            name: step.command.as_str().into(),
            payload: step.payload.clone(),
            intent: Intent::Decide,
            expected_version: None,
            origin: self.sender.origin.clone(),
        }
    }

    fn gave_up(&self, name: &str, gave_up: GaveUp) -> Halt {
        self.halt(match gave_up {
            GaveUp::Stopping => Verdict::Stopping,
            GaveUp::Failed(error) if self.pivoted() => {
                Verdict::Park(format!("the step {name} failed after the pivot: {error}"))
            }
            GaveUp::Failed(error) => Verdict::Unwind(Rejection {
                code: "step-failed".to_owned(),
                message: format!("The step {name} failed: {error}."),
                details: None,
            }),
        })
    }

    /// Sends the steps that the journal does not have, all at once, and answers all of them.
    async fn take(
        &self,
        steps: Vec<Step>,
        done: fn(String, Action, journal::Outcome) -> Entry,
    ) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
        let mut names = HashSet::new();
        if let Some(twice) = steps.iter().find(|step| !names.insert(step.name.as_str())) {
            let why = format!("the run uses the step name {} twice", twice.name);
            return Err(self.halt(Verdict::Park(why)));
        }
        let mut answers = Vec::with_capacity(steps.len());
        for step in &steps {
            answers.push(self.journaled_step(step)?);
        }
        let open: Vec<usize> = (0..steps.len()).filter(|index| answers[*index].is_none()).collect();
        let insist = self.pivoted();
        let sent = open.iter().map(|index| self.sender.send(self.command(&steps[*index]), insist));
        let mut entries = Vec::with_capacity(open.len());
        let mut failed = None;
        for (index, sent) in open.iter().zip(join_all(sent).await) {
            let step = &steps[*index];
            let (name, action) = (step.name.clone(), Action::from(step));
            match sent {
                Ok(Ok(accepted)) => {
                    let outcome = outcome(accepted);
                    entries.push(done(name, action, outcome.clone()));
                    answers[*index] = Some(Ok(outcome));
                }
                Ok(Err(rejection)) => {
                    let refused = Entry::StepRefused { name, action, rejection: rejection.clone() };
                    entries.push(refused);
                    answers[*index] = Some(Err(rejection));
                }
                Err(gave_up) => failed = Some((name, gave_up)),
            }
        }
        self.write(&entries)?;
        if let Some((name, failed)) = failed {
            return Err(self.gave_up(&name, failed));
        }
        Ok(answers.into_iter().flatten().map(|answer| answer.map(Outcome::from)).collect())
    }
}

#[async_trait]
impl Steps for Driver {
    async fn steps(&mut self, steps: Vec<Step>) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
        self.take(steps, |name, action, outcome| Entry::StepDone { name, action, outcome }).await
    }

    async fn pivot(&mut self, step: Step) -> Result<Result<Outcome, Rejection>, Halt> {
        let pivoted = |name, action, outcome| Entry::Pivoted { name, action, outcome };
        let answers = self.take(vec![step], pivoted).await?;
        answers.into_iter().next().ok_or(Halt)
    }

    async fn query(&mut self, name: String, request: Request) -> Result<Result<Json, Rejection>, Halt> {
        let asked = journal::Request {
            service: request.service.clone(),
            query: request.query.clone(),
            arguments: request.arguments.clone(),
        };
        match self.journaled(&name) {
            Some(Answered::Query { request, answer }) if request == asked => return Ok(answer),
            Some(other) => return Err(self.diverged(&name, &other, &asked)),
            None => {}
        }
        let id = CommandId::of_step(&self.sender.saga, &name);
        let mut failures = 0;
        let answer = loop {
            match self.ask.ask(request.clone(), 1).await {
                Ok(answer) => break Ok(answer),
                Err(AskFailure::Rejected(rejection)) => break Err(rejection),
                Err(AskFailure::Unavailable(why)) => {
                    failures += 1;
                    if failures >= MAX_ATTEMPTS {
                        return Err(self.gave_up(&name, GaveUp::Failed(why)));
                    }
                    let paused = self.sender.pause(&id, failures).await;
                    paused.map_err(|gave_up| self.gave_up(&name, gave_up))?;
                }
            }
        };
        self.write(&[Entry::QueryAnswered { name, request: asked, answer: answer.clone() }])?;
        Ok(answer)
    }

    async fn sleep(&mut self, name: String, _duration_ms: u64) -> Result<(), Halt> {
        Err(self.halt(Verdict::Park(format!("{name}: this version of the host has no durable timers yet"))))
    }

    async fn wait_for(
        &mut self,
        name: String,
        _awaited: Awaited,
        _timeout_ms: u64,
    ) -> Result<Option<Recorded>, Halt> {
        Err(self.halt(Verdict::Park(format!("{name}: this version of the host cannot wait for events yet"))))
    }
}

fn outcome(accepted: Accepted) -> journal::Outcome {
    let caused = |event: crate::model::NewEvent| Caused { name: event.name, payload: event.payload };
    journal::Outcome {
        version: accepted.version,
        events: accepted.events.into_iter().map(caused).collect(),
        view: accepted.view,
    }
}

/// The command that undoes what another one did.
pub(super) fn undo(
    sender: &Sender,
    step: &str,
    stream: StreamId,
    command: Arc<str>,
    undone: CommandId,
    reason: Rejection,
) -> Command {
    Command {
        id: CommandId::of_undo(&sender.saga, step),
        repeatable: true,
        stream,
        name: command,
        payload: Json::empty_object(),
        intent: Intent::Compensate { undone, reason },
        expected_version: None,
        origin: sender.origin.clone(),
    }
}
