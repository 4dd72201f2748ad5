//! The state machine of a saga. Pure, and the same live and on replay.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::entry::{Entry, Request, Wait};
use crate::model::{Digest, Json, NodeId, Rejection, SagaName, ServiceName, Version};
use crate::runtime::{Action, Outcome};

pub(crate) use crate::runtime::STEP_ZERO;

/// The state of a saga. Its name is the same in JSON, in the index of sagas and in metrics: `running`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    EnumString,
    IntoStaticStr,
    VariantArray,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum SagaState {
    /// Its code runs, or will as soon as its turn comes.
    Running,
    /// It sleeps, or waits for an event.
    Waiting,
    /// Its steps are being undone.
    Unwinding,
    /// It needs an operator.
    Parked,
    /// Everything is done.
    Completed,
    /// Everything is undone.
    Compensated,
    /// An operator has settled it by hand.
    Resolved,
}

impl SagaState {
    /// All states.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// Returns true if the saga has ended.
    pub fn ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Resolved)
    }

    /// Returns true if the saga does not continue by itself: it has ended, or is parked.
    pub(super) fn settled(self) -> bool {
        self.ended() || self == Self::Parked
    }

    /// Returns the state with this name.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    /// Returns the state's name: `running`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The command, query or wait under a name, and its answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answered {
    Step { action: Action, answer: Result<Outcome, Rejection> },
    Query { request: Request, answer: Result<Json, Rejection> },
    Wait { wait: Wait, event: Option<Version> },
}

/// The wait that a saga is in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) name: String,
    pub(crate) wait: Wait,
    pub(crate) until_ms: u64,
}

/// A saga after some entries of its journal.
#[derive(Clone, Debug)]
pub(crate) struct Saga {
    pub(crate) service: ServiceName,
    pub(crate) name: SagaName,
    /// The component that it runs on.
    pub(crate) digest: Digest,
    /// The host that runs it, or `None` if the log was never shared.
    pub(crate) runner: Option<NodeId>,
    pub(crate) state: SagaState,
    pub(crate) pivoted: bool,
    /// True if it is parked because its code is at fault.
    by_fault: bool,
    /// The reason for unwinding. Set from then on.
    pub(crate) reason: Option<Rejection>,
    pub(crate) answered: BTreeMap<String, Answered>,
    /// The number of times that it has continued as new. Everything above and below is of the run since then.
    pub(crate) generation: u32,
    /// The value with which it has continued as new.
    pub(crate) progress: Option<Json>,
    /// Set in the state `Waiting`.
    pub(crate) waiting: Option<Waiting>,
    /// The steps that took effect, or may have because they failed; oldest first.
    effects: Vec<(String, Action)>,
    undone: BTreeSet<String>,
    /// The steps without an answer, and those whose undo got none: an operator may skip them.
    pub(crate) failed: BTreeSet<String>,
}

/// An entry that cannot follow on the state of its saga.
#[derive(Debug, thiserror::Error)]
#[error("the journal is damaged: {entry} cannot follow in the state {state}")]
pub struct IllegalEntry {
    entry: &'static str,
    state: &'static str,
}

/// Returns the state after an entry. Fails if the entry cannot follow. Nothing else changes a saga's state.
pub(crate) fn next_state(saga: Option<Saga>, entry: &Entry) -> Result<Saga, IllegalEntry> {
    match (saga, entry) {
        (None, Entry::Started { service, saga, digest, .. }) => {
            Ok(Saga::new(service.clone(), saga.clone(), *digest))
        }
        (None, other) => Err(IllegalEntry { entry: other.name(), state: "not started" }),
        (Some(mut saga), entry) => {
            let state = saga.state;
            match saga.apply(entry) {
                Some(()) => Ok(saga),
                None => Err(IllegalEntry { entry: entry.name(), state: state.as_str() }),
            }
        }
    }
}

impl Saga {
    fn new(service: ServiceName, name: SagaName, digest: Digest) -> Self {
        Self {
            service,
            name,
            digest,
            runner: None,
            state: SagaState::Running,
            pivoted: false,
            by_fault: false,
            reason: None,
            answered: BTreeMap::new(),
            generation: 0,
            progress: None,
            waiting: None,
            effects: Vec::new(),
            undone: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Returns `None` if the entry cannot follow.
    fn apply(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::Moved { digest } => return self.move_over(*digest),
            Entry::Taken { node } if !self.state.ended() => {
                self.runner = Some(node.clone());
                return Some(());
            }
            _ => {}
        }
        match self.state {
            SagaState::Running => self.run(entry),
            SagaState::Waiting => self.wake(entry),
            SagaState::Unwinding => self.unwind(entry),
            SagaState::Parked => self.operate(entry),
            SagaState::Completed | SagaState::Compensated | SagaState::Resolved => None,
        }
    }

    /// A saga that is being undone no longer needs its component, and cannot move.
    fn move_over(&mut self, digest: Digest) -> Option<()> {
        let runs = self.reason.is_none() && !self.state.ended();
        runs.then(|| self.digest = digest)
    }

    fn run(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::StepDone { name, action, outcome, .. } if self.is_new(name) => {
                self.done(name, action, outcome);
            }
            Entry::Pivoted { name, action, outcome, .. } if !self.pivoted && self.is_new(name) => {
                self.done(name, action, outcome);
                self.pivoted = true;
            }
            Entry::StepRejected { name, action, rejection, .. } if !self.pivoted && self.is_new(name) => {
                let (action, answer) = (action.clone(), Err(rejection.clone()));
                self.answered.insert(name.clone(), Answered::Step { action, answer });
                // Failed before, and rejected now: it has no effect after all.
                self.effects.retain(|(effect, _)| effect != name);
                self.failed.remove(name);
            }
            Entry::StepFailed { name, action, .. } if self.is_new(name) => {
                self.affect(name, action);
                self.failed.insert(name.clone());
            }
            Entry::QueryAnswered { name, request, answer, .. } if self.is_new(name) => {
                let (request, answer) = (request.clone(), answer.clone());
                self.answered.insert(name.clone(), Answered::Query { request, answer });
            }
            Entry::Waiting { name, wait, until_ms } if self.is_new(name) => {
                let (name, wait) = (name.clone(), wait.clone());
                self.waiting = Some(Waiting { name, wait, until_ms: *until_ms });
                self.state = SagaState::Waiting;
            }
            Entry::ContinuedAsNew { progress } if self.may_continue_as_new() => {
                self.continue_as_new(progress);
            }
            Entry::Unwinding { reason } if !self.pivoted => {
                self.reason = Some(reason.clone());
                self.failed.clear();
                self.state = SagaState::Unwinding;
            }
            Entry::Completed {} if self.failed.is_empty() => self.state = SagaState::Completed,
            Entry::Parked { by_fault, .. } => self.park(*by_fault),
            _ => return None,
        }
        Some(())
    }

    fn wake(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::Awoken { name, event } => {
                let waiting = self.waiting.take().filter(|waiting| waiting.name == *name)?;
                let answered = Answered::Wait { wait: waiting.wait, event: *event };
                self.answered.insert(waiting.name, answered);
                self.state = SagaState::Running;
            }
            Entry::Parked { by_fault, .. } => self.park(*by_fault),
            _ => return None,
        }
        Some(())
    }

    fn unwind(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::Undone { name, .. } | Entry::NotUndone { name } if self.is_to_undo(name) => {
                self.leave_out(name);
            }
            Entry::UndoFailed { name, .. } if self.is_to_undo(name) => {
                self.failed.insert(name.clone());
            }
            Entry::Compensated {} if self.to_undo().next().is_none() => self.state = SagaState::Compensated,
            Entry::Parked { by_fault, .. } => self.park(*by_fault),
            _ => return None,
        }
        Some(())
    }

    /// Applies an operator's act.
    fn operate(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::Resolved { .. } => self.state = SagaState::Resolved,
            Entry::Resumed { .. } => self.resume(),
            Entry::Skipped { name, .. } if self.failed.contains(name) => {
                match self.reason {
                    Some(_) => self.leave_out(name),
                    None => {
                        let (_, action) = self.effects.iter().find(|(effect, _)| effect == name)?.clone();
                        self.done(name, &action, &skipped());
                    }
                }
                self.resume();
            }
            _ => return None,
        }
        Some(())
    }

    fn park(&mut self, by_fault: bool) {
        self.state = SagaState::Parked;
        self.by_fault = by_fault;
    }

    fn resume(&mut self) {
        self.failed.clear();
        self.by_fault = false;
        self.state = match (&self.reason, &self.waiting) {
            (Some(_), _) => SagaState::Unwinding,
            (None, Some(_)) => SagaState::Waiting,
            (None, None) => SagaState::Running,
        };
    }

    /// Returns true if the saga continues as soon as another component replays its journal: it is parked
    /// because its code is at fault.
    pub(super) fn is_mendable(&self) -> bool {
        self.state == SagaState::Parked && self.by_fault
    }

    /// Returns false for a run that has done nothing, which would begin anew without end, and for one with a
    /// failed step.
    pub(super) fn may_continue_as_new(&self) -> bool {
        !self.answered.is_empty() && self.failed.is_empty()
    }

    fn continue_as_new(&mut self, progress: &Json) {
        self.generation += 1;
        self.progress = Some(progress.clone());
        self.answered.clear();
        self.effects.clear();
        self.undone = BTreeSet::from([STEP_ZERO.to_owned()]);
        self.pivoted = false;
    }

    /// Returns the name of a step that is unique in all runs of the saga: the ids of its commands have it.
    pub(super) fn unique(&self, name: &str) -> String {
        match self.generation {
            0 => name.to_owned(),
            // No step has a slash in its name.
            generation => format!("{generation}/{name}"),
        }
    }

    fn is_new(&self, name: &str) -> bool {
        name != STEP_ZERO && !self.answered.contains_key(name)
    }

    fn done(&mut self, name: &str, action: &Action, outcome: &Outcome) {
        self.affect(name, action);
        self.failed.remove(name);
        let answered = Answered::Step { action: action.clone(), answer: Ok(outcome.clone()) };
        self.answered.insert(name.to_owned(), answered);
    }

    fn affect(&mut self, name: &str, action: &Action) {
        if self.action(name).is_none() {
            self.effects.push((name.to_owned(), action.clone()));
        }
    }

    fn leave_out(&mut self, name: &str) {
        self.undone.insert(name.to_owned());
        self.failed.remove(name);
    }

    fn is_to_undo(&self, name: &str) -> bool {
        self.to_undo().any(|step| step == name)
    }

    /// Returns the steps still to be undone, in this order: the newest first, step zero last.
    pub(crate) fn to_undo(&self) -> impl Iterator<Item = &str> {
        let steps = self.effects.iter().rev().map(|(name, _)| name.as_str()).chain([STEP_ZERO]);
        steps.filter(|name| !self.undone.contains(*name))
    }

    /// Returns the command of a step that took effect, or may have.
    pub(crate) fn action(&self, name: &str) -> Option<&Action> {
        self.effects.iter().find(|(effect, _)| effect == name).map(|(_, action)| action)
    }
}

/// Returns the outcome of a step that an operator has skipped.
fn skipped() -> Outcome {
    Outcome { version: Version::START, view: None }
}

#[cfg(test)]
mod tests;
