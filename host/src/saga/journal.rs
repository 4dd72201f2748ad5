//! What the journal of a saga says, and the state that follows from it. Pure: used live and on replay.
//!
//! | event | meaning |
//! |---|---|
//! | `started` | the run begins, on this component, because of this event |
//! | `step-done` | a command of the saga was accepted |
//! | `step-refused` | a command of the saga was rejected |
//! | `pivoted` | the deciding command was accepted: from here the saga only goes forward |
//! | `query-answered` | another service was asked |
//! | `unwinding` | the run returned a rejection, or a step failed for good: what was done is being undone |
//! | `undone` | one step has been undone |
//! | `undo-failed` | one step cannot be undone; the others are still undone, then the saga parks |
//! | `parked` | the saga needs a person |
//! | `completed` · `compensated` | the end |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Digest, Json, NewEvent, Rejection, StreamId, Version};
use crate::runtime;

/// The name of step zero: the command that caused the saga's trigger.
pub(crate) const STEP_ZERO: &str = "trigger";

/// A command as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Action {
    pub(crate) stream: String,
    pub(crate) command: String,
    pub(crate) payload: Json,
}

/// What an accepted command did, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) version: Version,
    pub(crate) events: Vec<Caused>,
    pub(crate) view: Option<Json>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Caused {
    pub(crate) name: Arc<str>,
    pub(crate) payload: Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) service: String,
    pub(crate) query: String,
    pub(crate) arguments: Json,
}

/// One event of a journal. The stored event's name is the variant's, its payload the variant's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Entry {
    Started { service: Arc<str>, saga: Arc<str>, digest: Digest, trigger: Trigger },
    StepDone { name: String, action: Action, outcome: Outcome },
    StepRefused { name: String, action: Action, rejection: Rejection },
    Pivoted { name: String, action: Action, outcome: Outcome },
    QueryAnswered { name: String, request: Request, answer: Result<Json, Rejection> },
    Unwinding { reason: Rejection },
    Undone { name: String },
    UndoFailed { name: String, error: String },
    Parked { why: String },
    Completed {},
    Compensated {},
}

/// The event that started a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trigger {
    pub(crate) stream: String,
    pub(crate) version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SagaState {
    Running,
    Unwinding,
    Parked,
    Completed,
    Compensated,
}

impl SagaState {
    pub fn ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }

    /// The state that an entry leads to, if it leads to another one.
    pub(crate) fn of_entry(name: &str) -> Option<Self> {
        Some(match name {
            "started" => Self::Running,
            "unwinding" => Self::Unwinding,
            "parked" => Self::Parked,
            "completed" => Self::Completed,
            "compensated" => Self::Compensated,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Unwinding => "unwinding",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
        }
    }
}

/// What the saga asked under a name, and the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answered {
    Step { action: Action, answer: Result<Outcome, Rejection> },
    Query { request: Request, answer: Result<Json, Rejection> },
}

/// A saga after some entries of its journal.
#[derive(Clone, Debug)]
pub(crate) struct Saga {
    pub(crate) service: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) state: SagaState,
    pub(crate) pivoted: bool,
    /// Why it unwinds.
    pub(crate) reason: Option<Rejection>,
    pub(crate) answered: BTreeMap<String, Answered>,
    /// The names of the steps that were done, oldest first.
    done: Vec<String>,
    undone: BTreeSet<String>,
    pub(crate) failed_undos: BTreeSet<String>,
}

/// An entry that cannot follow.
#[derive(Debug, thiserror::Error)]
#[error("the journal is damaged: {entry} cannot follow in the state {state}")]
pub(crate) struct IllegalEntry {
    entry: String,
    state: &'static str,
}

/// The only way a saga's state changes.
pub(crate) fn next_state(saga: Option<Saga>, entry: &Entry) -> Result<Saga, IllegalEntry> {
    let Some(mut saga) = saga else {
        return match entry {
            Entry::Started { service, saga, .. } => Ok(Saga::new(service.clone(), saga.clone())),
            other => Err(illegal(other, "not started")),
        };
    };
    let (state, pivoted) = (saga.state, saga.pivoted);
    match (state, entry) {
        (SagaState::Running, Entry::StepDone { name, action, outcome }) if saga.is_new(name) => {
            saga.step(name, action, Ok(outcome.clone()));
            saga.done.push(name.clone());
        }
        (SagaState::Running, Entry::StepRefused { name, action, rejection })
            if !pivoted && saga.is_new(name) =>
        {
            saga.step(name, action, Err(rejection.clone()));
        }
        (SagaState::Running, Entry::Pivoted { name, action, outcome }) if !pivoted && saga.is_new(name) => {
            saga.step(name, action, Ok(outcome.clone()));
            saga.pivoted = true;
        }
        (SagaState::Running, Entry::QueryAnswered { name, request, answer }) if saga.is_new(name) => {
            let answered = Answered::Query { request: request.clone(), answer: answer.clone() };
            saga.answered.insert(name.clone(), answered);
        }
        (SagaState::Running, Entry::Unwinding { reason }) if !pivoted => {
            saga.state = SagaState::Unwinding;
            saga.reason = Some(reason.clone());
        }
        (SagaState::Running, Entry::Completed {}) => saga.state = SagaState::Completed,
        (SagaState::Unwinding, Entry::Undone { name }) if saga.to_undo().any(|step| step == name) => {
            saga.undone.insert(name.clone());
            saga.failed_undos.remove(name);
        }
        (SagaState::Unwinding, Entry::UndoFailed { name, .. }) if saga.to_undo().any(|step| step == name) => {
            saga.failed_undos.insert(name.clone());
        }
        (SagaState::Unwinding, Entry::Compensated {}) if saga.to_undo().next().is_none() => {
            saga.state = SagaState::Compensated;
        }
        (SagaState::Running | SagaState::Unwinding, Entry::Parked { .. }) => saga.state = SagaState::Parked,
        (_, entry) => return Err(illegal(entry, state.as_str())),
    }
    Ok(saga)
}

fn illegal(entry: &Entry, state: &'static str) -> IllegalEntry {
    IllegalEntry { entry: entry.name(), state }
}

impl Saga {
    fn new(service: Arc<str>, name: Arc<str>) -> Self {
        Self {
            service,
            name,
            state: SagaState::Running,
            pivoted: false,
            reason: None,
            answered: BTreeMap::new(),
            done: Vec::new(),
            undone: BTreeSet::new(),
            failed_undos: BTreeSet::new(),
        }
    }

    fn is_new(&self, name: &str) -> bool {
        name != STEP_ZERO && !self.answered.contains_key(name)
    }

    fn step(&mut self, name: &str, action: &Action, answer: Result<Outcome, Rejection>) {
        self.answered.insert(name.to_owned(), Answered::Step { action: action.clone(), answer });
    }

    /// The steps still to be undone, in the order to do it: the last one done first, step zero last.
    pub(crate) fn to_undo(&self) -> impl Iterator<Item = &str> {
        let steps = self.done.iter().rev().map(String::as_str).chain([STEP_ZERO]);
        steps.filter(|name| !self.undone.contains(*name))
    }

    /// What a step asked for.
    pub(crate) fn action(&self, name: &str) -> Option<&Action> {
        match self.answered.get(name) {
            Some(Answered::Step { action, .. }) => Some(action),
            _ => None,
        }
    }
}

impl Entry {
    /// The name of the stored event: `step-done`.
    pub(crate) fn name(&self) -> String {
        self.parts().map(|(name, _)| name).unwrap_or_default()
    }

    pub(crate) fn to_event(&self) -> Result<NewEvent, serde_json::Error> {
        let (name, fields) = self.parts()?;
        Ok(NewEvent { name: name.into(), payload: Json::of(&fields)? })
    }

    pub(crate) fn from_event(name: &str, payload: &Json) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&format!("{{\"{name}\":{}}}", payload.as_str()))
    }

    fn parts(&self) -> Result<(String, Json), serde_json::Error> {
        let tagged: BTreeMap<String, Json> = Json::of(self)?.read()?;
        let error = || serde::ser::Error::custom("an entry is one tagged value");
        tagged.into_iter().next().ok_or_else(error)
    }
}

impl From<&runtime::Step> for Action {
    fn from(step: &runtime::Step) -> Self {
        Self {
            stream: step.stream.as_str().to_owned(),
            command: step.command.clone(),
            payload: step.payload.clone(),
        }
    }
}

impl Action {
    pub(crate) fn stream(&self) -> Option<StreamId> {
        StreamId::parse(&self.stream).ok()
    }
}

impl From<Outcome> for runtime::Outcome {
    fn from(outcome: Outcome) -> Self {
        let event = |caused: Caused| NewEvent { name: caused.name, payload: caused.payload };
        Self {
            version: outcome.version,
            events: outcome.events.into_iter().map(event).collect(),
            view: outcome.view,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action() -> Action {
        Action {
            stream: "product/p1".to_owned(),
            command: "reserve".to_owned(),
            payload: Json::empty_object(),
        }
    }

    fn outcome() -> Outcome {
        Outcome { version: 1, events: Vec::new(), view: None }
    }

    fn rejection() -> Rejection {
        Rejection { code: "no".to_owned(), message: "No.".to_owned(), details: None }
    }

    fn started() -> Entry {
        let trigger = Trigger { stream: "order/o1".to_owned(), version: 1 };
        Entry::Started {
            service: "order".into(),
            saga: "place-order".into(),
            digest: Digest::of(b""),
            trigger,
        }
    }

    fn done(name: &str) -> Entry {
        Entry::StepDone { name: name.to_owned(), action: action(), outcome: outcome() }
    }

    fn refused(name: &str) -> Entry {
        Entry::StepRefused { name: name.to_owned(), action: action(), rejection: rejection() }
    }

    fn pivoted() -> Entry {
        Entry::Pivoted { name: "pivot".to_owned(), action: action(), outcome: outcome() }
    }

    fn unwinding() -> Entry {
        Entry::Unwinding { reason: rejection() }
    }

    fn undone(name: &str) -> Entry {
        Entry::Undone { name: name.to_owned() }
    }

    fn undo_failed(name: &str) -> Entry {
        Entry::UndoFailed { name: name.to_owned(), error: "down".to_owned() }
    }

    fn parked() -> Entry {
        Entry::Parked { why: "why".to_owned() }
    }

    fn fold(entries: &[Entry]) -> Result<Saga, IllegalEntry> {
        let mut saga = None;
        for entry in entries {
            saga = Some(next_state(saga, entry)?);
        }
        saga.ok_or(IllegalEntry { entry: String::new(), state: "not started" })
    }

    #[test]
    fn every_entry_in_every_state() {
        let entries = [
            started(),
            done("new"),
            refused("new"),
            pivoted(),
            unwinding(),
            undone("a"),
            undo_failed("a"),
            parked(),
            Entry::Completed {},
            Entry::Compensated {},
        ];
        let a = done("a");
        let all_undone = [started(), a.clone(), unwinding(), undone("a"), undone(STEP_ZERO)];
        let compensated = [&all_undone[..], &[Entry::Compensated {}]].concat();
        let histories: [(&str, &[Entry], &[&str]); 9] = [
            ("not started", &[], &["started"]),
            (
                "running",
                &[started(), a.clone()],
                &["step-done", "step-refused", "pivoted", "unwinding", "parked", "completed"],
            ),
            ("pivoted", &[started(), a.clone(), pivoted()], &["step-done", "parked", "completed"]),
            ("unwinding", &[started(), a.clone(), unwinding()], &["undone", "undo-failed", "parked"]),
            (
                "undo failed",
                &[started(), a.clone(), unwinding(), undo_failed("a")],
                &["undone", "undo-failed", "parked"],
            ),
            ("all undone", &all_undone, &["parked", "compensated"]),
            ("parked", &[started(), a.clone(), parked()], &[]),
            ("completed", &[started(), a.clone(), pivoted(), Entry::Completed {}], &[]),
            ("compensated", &compensated, &[]),
        ];
        for (label, history, allowed) in histories {
            for entry in &entries {
                let legal = fold(&[history, std::slice::from_ref(entry)].concat()).is_ok();
                // The history of the state "pivoted" has used the pivot's name.
                assert_eq!(legal, allowed.contains(&&*entry.name()), "{} in {label}", entry.name());
            }
        }
    }

    #[test]
    fn undo_runs_in_reverse_and_ends_with_step_zero() {
        let saga = fold(&[started(), done("a"), done("b"), refused("c"), unwinding(), undone("b")]).unwrap();
        assert_eq!(saga.to_undo().collect::<Vec<_>>(), ["a", STEP_ZERO]);
    }

    #[test]
    fn a_name_is_used_once() {
        assert!(fold(&[started(), done("a"), done("a")]).is_err());
        assert!(fold(&[started(), done(STEP_ZERO)]).is_err());
    }

    #[test]
    fn entries_survive_the_log() {
        let answer = Err(rejection());
        let request = Request { service: "s".into(), query: "q".into(), arguments: Json::empty_object() };
        let query = Entry::QueryAnswered { name: "q".to_owned(), request, answer };
        for entry in [started(), done("a"), refused("b"), pivoted(), query, unwinding(), Entry::Completed {}]
        {
            let event = entry.to_event().unwrap();
            assert_eq!(Entry::from_event(&event.name, &event.payload).unwrap(), entry);
        }
    }
}
