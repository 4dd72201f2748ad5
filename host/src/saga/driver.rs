//! Takes the steps of one run: answers what the journal has, sends the rest, and journals the answers.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::future::join_all;
use serde::Serialize;
use tokio::time::timeout_at;

use super::entry::{self, Action, Caused, Divergence, Effort, Entry, Wait};
use super::journal::{Answered, Waiting};
use super::record::{Record, RecordError, written};
use super::retry::Phase;
use super::sender::{Fate, NotHere, Sender};
use crate::aggregate::Accepted;
use crate::model::{Json, NewEvent, Recorded, Rejection, Version};
use crate::runtime::{Awaited, Halt, Outcome, Request, Step, Steps};

/// Why a run was halted.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A step failed for good, and what was done is to be undone.
    Unwind(Rejection),
    /// A person has to look at it.
    Park(Entry),
    /// It waits, which its journal says.
    Wait,
    NotHere,
    /// The journal, or the log, cannot be read or written now.
    Record(RecordError),
    /// A rehearsal has come to where the journal ends.
    Rehearsed,
}

/// What a run and whoever started it share.
pub(super) struct Progress {
    pub(super) record: Record,
    /// Set when the run is halted.
    pub(super) verdict: Option<Verdict>,
    /// The names that this run has come to.
    pub(super) reached: BTreeSet<String>,
}

impl Progress {
    /// The entry that parks a saga whose run has left out what its journal has: that is another run.
    pub(super) fn left_out(&self) -> Option<Result<Entry, serde_json::Error>> {
        let saga = self.record.saga()?;
        let mut answered = saga.answered.iter();
        if let Some((name, answered)) = answered.find(|(name, _)| !self.reached.contains(*name)) {
            return Some(diverged(name, answered, None::<&Action>));
        }
        let waiting = saga.waiting.as_ref().filter(|waiting| !self.reached.contains(&waiting.name))?;
        let journaled = Answered::Wait { wait: waiting.wait.clone(), event: None };
        Some(diverged(&waiting.name, &journaled, None::<&Action>))
    }
}

/// The steps of one run.
pub(super) struct Driver {
    pub(super) sender: Sender,
    pub(super) progress: Arc<Mutex<Progress>>,
    /// Whether another process, or an earlier run, may have sent what the journal does not have.
    pub(super) resumed: bool,
    /// Whether it is only to be seen if the code goes the way of the journal. Nothing is sent then, and nothing written.
    pub(super) rehearsal: bool,
}

impl Driver {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn halt(&self, verdict: Verdict) -> Halt {
        self.progress().verdict = Some(verdict);
        Halt
    }

    fn not_here(&self, _: NotHere) -> Halt {
        self.halt(Verdict::NotHere)
    }

    fn write(&self, entries: &[Entry]) -> Result<(), Halt> {
        let written = self.progress().record.write(entries);
        written.map_err(|error| self.halt(Verdict::Record(error)))
    }

    fn note(&self, entries: &[Entry]) -> Result<(), Halt> {
        let noted = self.progress().record.note(entries);
        noted.map_err(|error| self.halt(Verdict::Record(error)))
    }

    /// Waits for an answer; if that takes long, what the run has done meanwhile is written for those who look.
    async fn patiently<T>(&self, work: impl Future<Output = T>) -> T {
        let noted_until = self.progress().record.noted_until();
        let Some(deadline) = noted_until else {
            return work.await;
        };
        let mut work = pin!(work);
        match timeout_at(deadline, &mut work).await {
            Ok(answer) => answer,
            Err(_) => {
                self.progress().record.write_noted();
                work.await
            }
        }
    }

    fn phase(&self) -> Phase {
        let pivoted = self.progress().record.saga().is_some_and(|saga| saga.pivoted);
        if pivoted { Phase::AfterPivot } else { Phase::BeforePivot }
    }

    /// What the journal has under a name that the run comes to. A run that comes to a name twice is halted.
    fn journaled(&self, name: &str) -> Result<Option<Answered>, Halt> {
        let mut progress = self.progress();
        if !progress.reached.insert(name.to_owned()) {
            let why = format!("the run uses the step name {name} twice");
            progress.verdict = Some(Verdict::Park(Entry::Parked { why, divergence: None }));
            return Err(Halt);
        }
        Ok(progress.record.saga().and_then(|saga| saga.answered.get(name).cloned()))
    }

    /// The run asks for something else than it did before: it would not be the same saga any more.
    fn diverged(&self, name: &str, journaled: &Answered, asked: &impl Serialize) -> Halt {
        self.halt(match diverged(name, journaled, Some(asked)) {
            Ok(parked) => Verdict::Park(parked),
            Err(error) => Verdict::Record(error.into()),
        })
    }

    fn journaled_step(&self, step: &Step) -> Result<Option<Result<entry::Outcome, Rejection>>, Halt> {
        let asked = Action::from(step);
        match self.journaled(&step.name)? {
            None => Ok(None),
            Some(Answered::Step { action, answer }) if action == asked => Ok(Some(answer)),
            Some(other) => Err(self.diverged(&step.name, &other, &asked)),
        }
    }

    /// What follows from a step that got no answer.
    fn gave_up(&self, name: &str, error: &str) -> Halt {
        self.halt(match self.phase() {
            Phase::AfterPivot => {
                let why = format!("the step {name} failed after the pivot: {error}");
                Verdict::Park(Entry::Parked { why, divergence: None })
            }
            // A client sees this: what the error was is for the operator, and stands in the journal.
            Phase::BeforePivot | Phase::Undo => {
                let message = format!("The step {name} got no answer in all its attempts.");
                Verdict::Unwind(Rejection::new("step-failed", message))
            }
        })
    }

    /// Sends the steps that the journal does not have, all at once, and answers all of them.
    async fn take(
        &self,
        steps: Vec<Step>,
        done: fn(String, Action, entry::Outcome, Effort) -> Entry,
    ) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
        let journaled = steps.iter().map(|step| self.journaled_step(step));
        let mut answers = journaled.collect::<Result<Vec<_>, _>>()?;
        let open: Vec<usize> = (0..steps.len()).filter(|index| answers[*index].is_none()).collect();
        if self.rehearsal && !open.is_empty() {
            return Err(self.halt(Verdict::Rehearsed));
        }
        if !open.is_empty() {
            let appending = self.progress().record.overtakable();
            written(appending).await.map_err(|error| self.halt(Verdict::Record(error)))?;
        }
        let phase = self.phase();
        let sent = open.iter().map(|index| {
            let step = &steps[*index];
            self.sender.step(&step.name, phase, self.sender.command(step, self.resumed))
        });
        let mut entries = Vec::with_capacity(open.len());
        let (mut failed, mut not_here) = (None, None);
        for (index, sent) in open.iter().zip(self.patiently(join_all(sent)).await) {
            let (name, action) = (steps[*index].name.clone(), Action::from(&steps[*index]));
            match sent {
                Ok((Fate::Accepted(accepted), effort)) => {
                    let outcome = outcome(accepted);
                    entries.push(done(name, action, outcome.clone(), effort));
                    answers[*index] = Some(Ok(outcome));
                }
                Ok((Fate::Refused(rejection), effort)) => {
                    answers[*index] = Some(Err(rejection.clone()));
                    entries.push(Entry::StepRefused { name, action, rejection, effort });
                }
                Ok((Fate::Failed(error), effort)) => {
                    failed = Some((name.clone(), error.clone()));
                    entries.push(Entry::StepFailed { name, action, error, effort });
                }
                Err(halted) => not_here = Some(halted),
            }
        }
        if answers.iter().all(|answer| matches!(answer, Some(Ok(_)))) {
            self.note(&entries)?;
        } else {
            self.write(&entries)?;
        }
        if let Some(not_here) = not_here {
            return Err(self.not_here(not_here));
        }
        if let Some((name, error)) = failed {
            return Err(self.gave_up(&name, &error));
        }
        Ok(answers.into_iter().flatten().map(|answer| answer.map(Outcome::from)).collect())
    }

    /// Where the journal ends with a wait, the run has to come to the same one.
    fn rehearsed_wait(&self, name: &str, wait: &Wait) -> Halt {
        let waiting = self.progress().record.saga().and_then(|saga| saga.waiting.clone());
        match waiting.filter(|waiting| waiting.name == name && waiting.wait != *wait) {
            Some(Waiting { wait: journaled, .. }) => {
                self.diverged(name, &Answered::Wait { wait: journaled, event: None }, wait)
            }
            None => self.halt(Verdict::Rehearsed),
        }
    }

    /// Halts the run until the time is over or the event is there; the version of the event when that is so.
    fn wait(&self, name: String, wait: Wait) -> Result<Option<Version>, Halt> {
        match self.journaled(&name)? {
            Some(Answered::Wait { wait: journaled, event }) if journaled == wait => return Ok(event),
            Some(other) => return Err(self.diverged(&name, &other, &wait)),
            None if self.rehearsal => return Err(self.rehearsed_wait(&name, &wait)),
            None => {}
        }
        let (Wait::Sleep { duration_ms: time_ms } | Wait::Event { timeout_ms: time_ms, .. }) = wait;
        let until_ms = self.sender.shared.deps.clock.now_ms().saturating_add(time_ms);
        self.write(&[Entry::Waiting { name, wait, until_ms }])?;
        Err(self.halt(Verdict::Wait))
    }
}

#[async_trait]
impl Steps for Driver {
    async fn steps(&mut self, steps: Vec<Step>) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
        let done = |name, action, outcome, effort| Entry::StepDone { name, action, outcome, effort };
        self.take(steps, done).await
    }

    async fn pivot(&mut self, step: Step) -> Result<Result<Outcome, Rejection>, Halt> {
        let pivoted = |name, action, outcome, effort| Entry::Pivoted { name, action, outcome, effort };
        let answers = self.take(vec![step], pivoted).await?;
        answers.into_iter().next().ok_or(Halt)
    }

    async fn query(&mut self, name: String, request: Request) -> Result<Result<Json, Rejection>, Halt> {
        let asked = entry::Request::from(&request);
        match self.journaled(&name)? {
            Some(Answered::Query { request, answer }) if request == asked => return Ok(answer),
            Some(other) => return Err(self.diverged(&name, &other, &asked)),
            None if self.rehearsal => return Err(self.halt(Verdict::Rehearsed)),
            None => {}
        }
        let answered = self.patiently(self.sender.ask(&name, self.phase(), &request)).await;
        let (fate, effort) = answered.map_err(|not_here| self.not_here(not_here))?;
        let answer = match fate {
            Fate::Accepted(answer) => Ok(answer),
            Fate::Refused(rejection) => Err(rejection),
            Fate::Failed(error) => {
                tracing::warn!(saga = %self.sender.id, question = name, "no answer in all attempts: {error}");
                return Err(self.gave_up(&name, &error));
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
        Awaited { stream, events }: Awaited,
        timeout_ms: u64,
    ) -> Result<Option<Recorded>, Halt> {
        let wait = Wait::Event { stream: stream.clone(), events, timeout_ms };
        let Some(version) = self.wait(name, wait)? else {
            return Ok(None);
        };
        let read = self.sender.shared.deps.log.read(&stream, version.before(1), 1).await;
        let events = read.map_err(|error| self.halt(Verdict::Record(error.into())))?;
        Ok(events.into_iter().next())
    }
}

/// The entry that parks a saga whose replay is another one. `asked`: none if it did not come to the step.
fn diverged(
    name: &str,
    journaled: &Answered,
    asked: Option<&impl Serialize>,
) -> Result<Entry, serde_json::Error> {
    let journaled = match journaled {
        Answered::Step { action, .. } => Json::of(action),
        Answered::Query { request, .. } => Json::of(request),
        Answered::Wait { wait, .. } => Json::of(wait),
    };
    let divergence = Divergence { journaled: journaled?, asked: Json::of(&asked)? };
    let why = match asked {
        Some(_) => format!("the run diverged: at {name} it asks for something else than it did before"),
        None => format!("the run diverged: it does not come to {name} any more"),
    };
    Ok(Entry::Parked { why, divergence: Some(divergence) })
}

fn outcome(accepted: Accepted) -> entry::Outcome {
    let caused = |event: NewEvent| Caused { name: event.name, payload: event.payload };
    entry::Outcome {
        version: accepted.version,
        events: accepted.events.into_iter().map(caused).collect(),
        view: accepted.view,
    }
}

/// The version of the first event that a saga waits for, if it is in the log.
pub(super) async fn awaited(
    sender: &Sender,
    trigger: &Recorded,
    waiting: &Waiting,
) -> Result<Option<Version>, RecordError> {
    let Wait::Event { stream, events, .. } = &waiting.wait else {
        return Ok(None);
    };
    let mut after = Version::START;
    loop {
        let page = sender.shared.deps.log.read(stream, after, crate::log::MAX_PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        after = last.version;
        let matches = |event: &&Recorded| {
            event.position > trigger.position && events.iter().any(|name| **name == *event.name.as_str())
        };
        if let Some(event) = page.iter().find(matches) {
            return Ok(Some(event.version));
        }
    }
}
