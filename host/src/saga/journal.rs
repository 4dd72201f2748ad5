//! The state that follows from a journal. Pure: used live and on replay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Action, Entry, Outcome, Request, Wait};

use crate::model::{Digest, Json, NodeId, Rejection, Version};

/// The name of step zero: the command that caused the saga's trigger.
pub(crate) const STEP_ZERO: &str = "trigger";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SagaState {
    /// Its code runs, or will as soon as there is a place.
    Running,
    /// It sleeps, or waits for an event.
    Waiting,
    /// What it did is being undone.
    Unwinding,
    /// It needs a person.
    Parked,
    /// Everything is done.
    Completed,
    /// Everything is undone.
    Compensated,
    /// A person has seen to it by hand.
    Resolved,
}

impl SagaState {
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Waiting,
        Self::Unwinding,
        Self::Parked,
        Self::Completed,
        Self::Compensated,
        Self::Resolved,
    ];

    pub fn ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Resolved)
    }

    /// Reads what [`SagaState::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Unwinding => "unwinding",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Resolved => "resolved",
        }
    }
}

/// What the saga asked under a name, and the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answered {
    Step { action: Action, answer: Result<Outcome, Rejection> },
    Query { request: Request, answer: Result<Json, Rejection> },
    Wait { wait: Wait, event: Option<Version> },
}

/// What a saga waits for now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) name: String,
    pub(crate) wait: Wait,
    pub(crate) until_ms: u64,
}

/// A saga after some entries of its journal.
#[derive(Clone, Debug)]
pub(crate) struct Saga {
    pub(crate) service: Arc<str>,
    pub(crate) name: Arc<str>,
    /// The component that it runs on.
    pub(crate) digest: Digest,
    /// The host that runs it; none if it has never been one of several.
    pub(crate) runner: Option<NodeId>,
    pub(crate) state: SagaState,
    pub(crate) pivoted: bool,
    /// Why it unwinds.
    pub(crate) reason: Option<Rejection>,
    pub(crate) answered: BTreeMap<String, Answered>,
    /// Set in the state waiting.
    pub(crate) waiting: Option<Waiting>,
    /// The steps that took effect, or may have because they failed; oldest first.
    effects: Vec<(String, Action)>,
    undone: BTreeSet<String>,
    /// The steps that got no answer, and those whose undo got none: what a person may leave out.
    pub(crate) failed: BTreeSet<String>,
}

/// An entry that cannot follow.
#[derive(Debug, thiserror::Error)]
#[error("the journal is damaged: {entry} cannot follow in the state {state}")]
pub(crate) struct IllegalEntry {
    entry: &'static str,
    state: &'static str,
}

/// The only way a saga's state changes.
pub(crate) fn next_state(saga: Option<Saga>, entry: &Entry) -> Result<Saga, IllegalEntry> {
    match (saga, entry) {
        (None, Entry::Started { service, saga, digest, .. }) => {
            Ok(Saga::new(service.clone(), saga.clone(), *digest))
        }
        (None, other) => Err(IllegalEntry { entry: other.name(), state: "not started" }),
        (Some(mut saga), entry) => {
            let state = saga.state;
            match saga.take_in(entry) {
                Some(()) => Ok(saga),
                None => Err(IllegalEntry { entry: entry.name(), state: state.as_str() }),
            }
        }
    }
}

impl Saga {
    fn new(service: Arc<str>, name: Arc<str>, digest: Digest) -> Self {
        Self {
            service,
            name,
            digest,
            runner: None,
            state: SagaState::Running,
            pivoted: false,
            reason: None,
            answered: BTreeMap::new(),
            waiting: None,
            effects: Vec::new(),
            undone: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    /// None if the entry cannot follow.
    fn take_in(&mut self, entry: &Entry) -> Option<()> {
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

    /// What is being undone needs the component no more.
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
            Entry::StepRefused { name, action, rejection, .. } if !self.pivoted && self.is_new(name) => {
                let (action, answer) = (action.clone(), Err(rejection.clone()));
                self.answered.insert(name.clone(), Answered::Step { action, answer });
                // Failed before, and refused now: it has no effect after all.
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
            Entry::Unwinding { reason } if !self.pivoted => {
                self.reason = Some(reason.clone());
                self.failed.clear();
                self.state = SagaState::Unwinding;
            }
            Entry::Completed {} if self.failed.is_empty() => self.state = SagaState::Completed,
            Entry::Parked { .. } => self.state = SagaState::Parked,
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
            _ => return None,
        }
        Some(())
    }

    fn unwind(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::Undone { name, .. } if self.is_to_undo(name) => self.leave(name),
            Entry::UndoFailed { name, .. } if self.is_to_undo(name) => {
                self.failed.insert(name.clone());
            }
            Entry::Compensated {} if self.to_undo().next().is_none() => self.state = SagaState::Compensated,
            Entry::Parked { .. } => self.state = SagaState::Parked,
            _ => return None,
        }
        Some(())
    }

    /// What a person does.
    fn operate(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::Resolved { .. } => self.state = SagaState::Resolved,
            Entry::Resumed {} => self.resume(),
            Entry::Skipped { name, .. } if self.failed.contains(name) => {
                match self.reason {
                    Some(_) => self.leave(name),
                    None => {
                        let (_, action) = self.effects.iter().find(|(effect, _)| effect == name)?.clone();
                        self.done(name, &action, &Outcome::nothing());
                    }
                }
                self.resume();
            }
            _ => return None,
        }
        Some(())
    }

    fn resume(&mut self) {
        self.failed.clear();
        self.state = if self.reason.is_some() { SagaState::Unwinding } else { SagaState::Running };
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

    fn leave(&mut self, name: &str) {
        self.undone.insert(name.to_owned());
        self.failed.remove(name);
    }

    fn is_to_undo(&self, name: &str) -> bool {
        self.to_undo().any(|step| step == name)
    }

    /// The steps still to be undone, in the order to do it: the newest first, step zero last.
    pub(crate) fn to_undo(&self) -> impl Iterator<Item = &str> {
        let steps = self.effects.iter().rev().map(|(name, _)| name.as_str()).chain([STEP_ZERO]);
        steps.filter(|name| !self.undone.contains(*name))
    }

    /// What a step that took effect asked for, or may have.
    pub(crate) fn action(&self, name: &str) -> Option<&Action> {
        self.effects.iter().find(|(effect, _)| effect == name).map(|(_, action)| action)
    }
}

#[cfg(test)]
mod tests;
