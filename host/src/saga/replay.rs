//! The part of a run that its journal answers, the same in a live run and in a dry run.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::entry::{Divergence, Entry, Request, Wait};
use super::journal::{Answered, Saga, Waiting};
use super::record::{Record, RecordError};
use crate::log::EventLog;
use crate::model::{Json, Recorded, Rejection, StreamId, Version};
use crate::runtime::{Action, Halt, Outcome, Step};

/// The reason why a run was halted.
#[derive(Debug)]
pub(super) enum HaltReason {
    /// A step failed for good, and the steps before it are to be undone.
    Unwind(Rejection),
    /// The saga needs an operator. The entry is `parked`.
    Park(Entry),
    /// The saga waits, as its journal says.
    Wait,
    /// The saga begins anew, as its journal says.
    ContinueAsNew,
    /// The host is stopping, or another one has the saga.
    Relinquished,
    /// The journal, or the log, cannot be read or written now.
    Record(RecordError),
    /// A dry run has reached the end of the journal.
    EndOfJournal,
}

/// The state that a run shares with its caller.
pub(super) struct Progress {
    pub(super) record: Record,
    /// Set when the run is halted.
    pub(super) halt_reason: Option<HaltReason>,
    /// The step names that this run has reached.
    reached: BTreeSet<String>,
}

impl Progress {
    pub(super) fn new(record: Record) -> Self {
        Self { record, halt_reason: None, reached: BTreeSet::new() }
    }

    /// Prepares for a run from the first line.
    pub(super) fn start_over(&mut self) {
        self.reached.clear();
    }

    /// Returns the entry that parks a saga whose run has ended without reaching all that its journal has.
    pub(super) fn left_out(&self) -> Result<Option<Entry>, serde_json::Error> {
        let Some(saga) = self.record.saga() else { return Ok(None) };
        let mut answered = saga.answered.iter();
        if let Some((name, answered)) = answered.find(|(name, _)| !self.reached.contains(*name)) {
            return diverged(name, answered, None::<&Action>).map(Some);
        }
        let waiting = saga.waiting.as_ref().filter(|waiting| !self.reached.contains(&waiting.name));
        let Some(Waiting { name, wait, .. }) = waiting else { return Ok(None) };
        let journaled = Answered::Wait { wait: wait.clone(), event: None };
        diverged(name, &journaled, None::<&Action>).map(Some)
    }
}

/// Compares a run with its journal and answers from it.
pub(super) struct Replay {
    progress: Arc<Mutex<Progress>>,
}

impl Replay {
    pub(super) fn new(progress: Arc<Mutex<Progress>>) -> Self {
        Self { progress }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the reason of a halt for the caller of the run.
    pub(super) fn halt(&self, reason: HaltReason) -> Halt {
        self.progress().halt_reason = Some(reason);
        Halt
    }

    /// Returns the journal's answer to a step, or `None` if it has none.
    pub(super) fn step(&self, step: &Step) -> Result<Option<Result<Outcome, Rejection>>, Halt> {
        match self.journaled(&step.name)? {
            None => Ok(None),
            Some(Answered::Step { action, answer }) if action == step.action => Ok(Some(answer)),
            Some(other) => Err(self.diverged(&step.name, &other, &step.action)),
        }
    }

    /// Halts a run that comes to a pivot after another one.
    pub(super) fn check_pivot(&self, name: &str) -> Result<(), Halt> {
        let progress = self.progress();
        let second = |saga: &Saga| saga.pivoted && !saga.answered.contains_key(name);
        if !progress.record.saga().is_some_and(second) {
            return Ok(());
        }
        drop(progress);
        let why = format!("the run has a second pivot, {name}");
        Err(self.halt(HaltReason::Park(Entry::parked_by_fault(&why))))
    }

    /// Returns the journal's answer to a query, or `None` if it has none.
    pub(super) fn query(&self, name: &str, asked: &Request) -> Result<Option<Result<Json, Rejection>>, Halt> {
        match self.journaled(name)? {
            None => Ok(None),
            Some(Answered::Query { request, answer }) if request == *asked => Ok(Some(answer)),
            Some(other) => Err(self.diverged(name, &other, asked)),
        }
    }

    /// Returns the end of a wait by the journal: the version of the awaited event, or an inner `None` if the
    /// time was over first. The outer `None`: the journal has no end of it.
    pub(super) fn wait(&self, name: &str, asked: &Wait) -> Result<Option<Option<Version>>, Halt> {
        match self.journaled(name)? {
            None => Ok(None),
            Some(Answered::Wait { wait, event }) if wait == *asked => Ok(Some(event)),
            Some(other) => Err(self.diverged(name, &other, asked)),
        }
    }

    /// Returns the journal's entry under a name that the run reaches. Halts a run that reaches a name twice.
    fn journaled(&self, name: &str) -> Result<Option<Answered>, Halt> {
        let mut progress = self.progress();
        if !progress.reached.insert(name.to_owned()) {
            let why = format!("the run uses the step name {name} twice");
            progress.halt_reason = Some(HaltReason::Park(Entry::parked_by_fault(&why)));
            return Err(Halt);
        }
        Ok(progress.record.saga().and_then(|saga| saga.answered.get(name).cloned()))
    }

    /// Halts a run that asks for something other than its journal has: it would not be the same saga any
    /// more.
    pub(super) fn diverged(&self, name: &str, journaled: &Answered, asked: &impl Serialize) -> Halt {
        self.halt(match diverged(name, journaled, Some(asked)) {
            Ok(parked) => HaltReason::Park(parked),
            Err(error) => HaltReason::Record(error.into()),
        })
    }

    /// Returns the value with which the saga continued as new last.
    pub(super) fn progress_so_far(&self) -> Option<Json> {
        self.progress().record.saga().and_then(|saga| saga.progress.clone())
    }

    /// Halts a run that may not continue as new: it has left out a part of its journal, or done nothing.
    pub(super) fn check_continue_as_new(&self) -> Result<(), Halt> {
        let progress = self.progress();
        let left_out = progress.left_out();
        let may = progress.record.saga().is_some_and(Saga::may_continue_as_new);
        drop(progress);
        match left_out {
            Ok(None) if may => Ok(()),
            Ok(None) => {
                let why = "the run continues as new and has taken no step";
                Err(self.halt(HaltReason::Park(Entry::parked_by_fault(why))))
            }
            Ok(Some(parked)) => Err(self.halt(HaltReason::Park(parked))),
            Err(error) => Err(self.halt(HaltReason::Record(error.into()))),
        }
    }

    /// Reads the event for which a wait has ended.
    pub(super) async fn event(
        &self,
        log: &dyn EventLog,
        stream: &StreamId,
        version: Version,
    ) -> Result<Option<Recorded>, Halt> {
        let read = log.read(stream, version.before(1), 1).await;
        let events = read.map_err(|error| self.halt(HaltReason::Record(error.into())))?;
        Ok(events.into_iter().next())
    }
}

/// Returns the entry that parks a diverged saga. `asked`: `None` if the run does not reach the step any more.
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
        Some(_) => format!("the run diverged: at {name} it asks for something other than its journal has"),
        None => format!("the run diverged: it does not reach {name} any more"),
    };
    Ok(Entry::Parked { why, divergence: Some(divergence), by_fault: false })
}
