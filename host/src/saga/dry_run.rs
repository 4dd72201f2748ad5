//! A dry run verifies that a component's code replays the journal of a saga. It sends and writes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::Inner;
use super::entry::{self, Entry, Wait};
use super::index::SagaHandle;
use super::journal::{Answered, Waiting};
use super::record::{Record, RecordError, own_caller};
use super::replay::{HaltReason, Progress, Replay};
use super::runner::{self, RunError};
use crate::log::EventLog;
use crate::model::{Json, Recorded, Rejection, Version};
use crate::runtime::{Awaited, Component, Halt, Outcome, Request, SagaEnd, Step, Steps};

/// The steps of a dry run: all answers come from the journal, and the run ends where the journal ends.
struct DryRun {
    replay: Replay,
    log: Arc<dyn EventLog>,
}

impl DryRun {
    fn end_of_journal(&self) -> Halt {
        self.replay.halt(HaltReason::EndOfJournal)
    }

    fn wait(&self, name: &str, wait: &Wait) -> Result<Option<Version>, Halt> {
        if let Some(event) = self.replay.wait(name, wait)? {
            return Ok(event);
        }
        // A journal that ends with a wait: the run must reach the same one.
        let waiting = self.replay.progress().record.saga().and_then(|saga| saga.waiting.clone());
        Err(match waiting.filter(|waiting| waiting.name == name && waiting.wait != *wait) {
            Some(Waiting { wait: journaled, .. }) => {
                self.replay.diverged(name, &Answered::Wait { wait: journaled, event: None }, wait)
            }
            None => self.end_of_journal(),
        })
    }
}

#[async_trait]
impl Steps for DryRun {
    async fn steps(&mut self, steps: Vec<Step>) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
        let journaled = steps.iter().map(|step| self.replay.step(step)).collect::<Result<Vec<_>, _>>()?;
        journaled.into_iter().collect::<Option<_>>().ok_or_else(|| self.end_of_journal())
    }

    async fn pivot(&mut self, step: Step) -> Result<Result<Outcome, Rejection>, Halt> {
        self.replay.check_pivot(&step.name)?;
        self.replay.step(&step)?.ok_or_else(|| self.end_of_journal())
    }

    async fn query(&mut self, name: String, request: Request) -> Result<Result<Json, Rejection>, Halt> {
        let journaled = self.replay.query(&name, &entry::Request::from(&request))?;
        journaled.ok_or_else(|| self.end_of_journal())
    }

    async fn sleep(&mut self, name: String, duration_ms: u64) -> Result<(), Halt> {
        self.wait(&name, &Wait::Sleep { duration_ms }).map(|_| ())
    }

    async fn wait_for(
        &mut self,
        name: String,
        Awaited { stream, events, after }: Awaited,
        timeout_ms: u64,
    ) -> Result<Option<Recorded>, Halt> {
        let wait = Wait::Event { stream: stream.clone(), events, timeout_ms, after };
        match self.wait(&name, &wait)? {
            Some(version) => self.replay.event(&*self.log, &stream, version).await,
            None => Ok(None),
        }
    }

    async fn continue_as_new(&mut self, _: Json) -> Halt {
        match self.replay.check_continue_as_new() {
            Ok(()) => self.end_of_journal(),
            Err(halt) => halt,
        }
    }

    fn progress(&self) -> Option<Json> {
        self.replay.progress_so_far()
    }
}

/// Runs the code of an open saga on another component, up to the end of its journal. Returns the journal's
/// version and, as an error, the way in which the run diverges; or `None` if the saga's code is not to run
/// any more.
pub(super) async fn rehearse(
    inner: &Inner,
    handle: &SagaHandle,
    component: &Component,
) -> Result<Option<(Version, Result<(), String>)>, RunError> {
    let trigger = runner::trigger(inner, handle).await?;
    let record = Record::open(&inner.deps, &handle.id, &trigger, own_caller(&handle.id)).await?;
    let version = record.version();
    if !record.saga().is_some_and(|saga| saga.reason.is_none() && !saga.state.ended()) {
        return Ok(None);
    }
    let progress = Arc::new(Mutex::new(Progress::new(record)));
    let steps = DryRun { replay: Replay::new(progress.clone()), log: inner.deps.log.clone() };
    let end = component.run_saga(&handle.name, &handle.id, &trigger, Box::new(steps)).await;
    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
    let parked = match (end, progress.halt_reason.take()) {
        (SagaEnd::Fault(fault), _) => {
            return Ok(Some((version, Err(format!("{fault}: {}", fault.cause())))));
        }
        (_, Some(HaltReason::Record(error))) => return Err(error.into()),
        (_, Some(HaltReason::Park(parked))) => Some(parked),
        _ => progress.left_out().map_err(RecordError::from)?,
    };
    let replayed = match parked {
        Some(Entry::Parked { why, .. }) => Err(why),
        _ => Ok(()),
    };
    Ok(Some((version, replayed)))
}
