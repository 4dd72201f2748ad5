//! How a saga went, for a person to read. Pure: folded from its journal.

use serde::{Deserialize, Serialize};

use super::entry::{Action, Effort, Entry, Wait};
use super::index::Open;
use super::journal::{STEP_ZERO, SagaState, next_state};
use super::record::RecordError;
use crate::clock::Time;

use crate::model::{
    Actor, CommandName, Digest, EventName, NodeId, QueryName, Recorded, Rejection, SagaId, SagaName,
    ServiceName, StreamId, Version, variant_of,
};

pub use super::entry::Divergence;

/// One saga from its trigger to where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    pub id: SagaId,
    pub service: ServiceName,
    pub name: SagaName,
    pub state: SagaState,
    /// The component that it runs on; none before it has begun.
    pub digest: Option<Digest>,
    /// The host that runs it, or ran it last, where several share the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<NodeId>,
    pub trigger: Trigger,
    /// When the trigger was recorded.
    pub started: Time,
    /// None while it may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Why it unwinds or unwound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Rejection>,
    /// Why it is parked, was when a person ended it, or cannot run at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Set if it is parked because its replay was another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// The steps that failed, or whose undo did: what a person may have left out while it is parked.
    pub failed: Vec<String>,
    /// Step zero first, the others in the order in which they were answered.
    pub steps: Vec<Step>,
    /// What persons did about it, oldest first.
    pub acts: Vec<Acted>,
}

/// The event that started a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    pub stream: StreamId,
    pub version: Version,
    /// The event's name: `order-created`.
    pub event: EventName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in the saga; that of step zero is `trigger`.
    pub name: String,
    #[serde(flatten)]
    pub asked: Asked,
    pub outcome: Outcome,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    #[serde(flatten)]
    pub course: Course,
    /// None: it has not been undone, or there is nothing to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Undo>,
}

/// What a step is. A deciding command that was refused or failed is a `step`: only its acceptance makes it the pivot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Asked {
    Step { stream: StreamId, command: CommandName },
    Pivot { stream: StreamId, command: CommandName },
    Query { service: ServiceName, query: QueryName },
    Sleep { until: Time },
    Wait { stream: StreamId, events: Vec<String>, until: Time },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    Refused,
    /// It got neither done nor refused in all its attempts.
    Failed,
    /// A person had it left out.
    Skipped,
    /// The time is not over, or the event not there yet.
    Waiting,
    /// The service that was asked has answered.
    Answered,
    /// The time was over before the event was there.
    TimedOut,
}

/// What became of the compensation of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    pub outcome: UndoOutcome,
    #[serde(flatten)]
    pub course: Course,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoOutcome {
    Done,
    Failed,
    /// A person had it left out.
    Skipped,
}

/// How a step or an undo came to its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// When that was journaled; of what still waits, when it began to.
    pub time: Time,
    /// In all, those before a person had it tried again included; none for what is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How long it was tried or waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The last attempt's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why a person had it left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_because: Option<String>,
}

/// What a person did about a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acted {
    pub time: Time,
    pub actor: Actor,
    pub act: ActName,
    /// What was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActName {
    Retry,
    Skip,
    Resolve,
}

impl Timeline {
    /// `journal`: empty if the saga has not begun.
    pub(super) fn of(open: &Open, trigger: &Recorded, journal: &[Recorded]) -> Result<Self, RecordError> {
        let mut timeline = Self::triggered(open, trigger);
        let mut saga = None;
        for event in journal {
            let entry = variant_of(event.name.as_str(), &event.payload)?;
            saga = Some(next_state(saga, &entry)?);
            timeline.take_in(entry, Time(event.meta.time_ms), &event.meta.actor);
        }
        if let Some(saga) = saga {
            timeline.state = saga.state;
            timeline.digest = Some(saga.digest);
            timeline.runner = saga.runner;
            timeline.failed = saga.failed.into_iter().collect();
            timeline.ended =
                journal.last().filter(|_| saga.state.ended()).map(|event| Time(event.meta.time_ms));
        }
        Ok(timeline)
    }

    fn triggered(open: &Open, trigger: &Recorded) -> Self {
        let (stream, command) = (trigger.stream.clone(), trigger.meta.command.clone());
        let started = Time(trigger.meta.time_ms);
        Self {
            id: open.id.clone(),
            service: open.service.clone(),
            name: open.name.clone(),
            state: SagaState::Running,
            digest: None,
            runner: None,
            trigger: Trigger {
                stream: stream.clone(),
                version: trigger.version,
                event: trigger.name.clone(),
            },
            started,
            ended: None,
            reason: None,
            why: None,
            divergence: None,
            failed: Vec::new(),
            steps: vec![Step::new(
                STEP_ZERO.to_owned(),
                Asked::Step { stream, command },
                Outcome::Done,
                Course::at(started),
            )],
            acts: Vec::new(),
        }
    }

    fn take_in(&mut self, entry: Entry, time: Time, actor: &Actor) {
        match entry {
            Entry::StepDone { name, action, effort, .. } => {
                self.answered(Step::new(name, Asked::step(action), Outcome::Done, Course::of(effort, time)));
            }
            Entry::Pivoted { name, action: Action { stream, command, .. }, effort, .. } => {
                let asked = Asked::Pivot { stream, command: command.into() };
                self.answered(Step::new(name, asked, Outcome::Done, Course::of(effort, time)));
            }
            Entry::StepRefused { name, action, rejection, effort } => {
                let step = Step::new(name, Asked::step(action), Outcome::Refused, Course::of(effort, time));
                self.answered(Step { rejection: Some(rejection), ..step });
            }
            Entry::StepFailed { name, action, error, effort } => {
                let course = Course { error: Some(error), ..Course::of(effort, time) };
                self.answered(Step::new(name, Asked::step(action), Outcome::Failed, course));
            }
            Entry::QueryAnswered { name, request, answer, effort } => {
                let asked = Asked::Query { service: request.service.into(), query: request.query.into() };
                let outcome = if answer.is_ok() { Outcome::Answered } else { Outcome::Refused };
                let step = Step::new(name, asked, outcome, Course::of(effort, time));
                self.answered(Step { rejection: answer.err(), ..step });
            }
            Entry::Waiting { name, wait, until_ms } => {
                let asked = Asked::wait(wait, Time(until_ms));
                self.answered(Step::new(name, asked, Outcome::Waiting, Course::at(time)));
            }
            Entry::Awoken { name, event } => self.awoken(&name, event, time),
            Entry::Undone { name, effort } => {
                self.undone(&name, UndoOutcome::Done, Course::of(effort, time));
            }
            Entry::UndoFailed { name, error, effort } => {
                let course = Course { error: Some(error), ..Course::of(effort, time) };
                self.undone(&name, UndoOutcome::Failed, course);
            }
            Entry::Unwinding { reason } => self.reason = Some(reason),
            Entry::Parked { why, divergence } => (self.why, self.divergence) = (Some(why), divergence),
            // The timeline tells on what and where it runs in the end.
            Entry::Moved { .. } | Entry::Taken { .. } => {}
            Entry::Resumed {} => self.act(ActName::Retry, time, actor, None, None),
            Entry::Skipped { name, reason } => {
                self.skipped(&name, reason.clone(), time);
                self.act(ActName::Skip, time, actor, Some(name), Some(reason));
            }
            Entry::Resolved { reason } => self.act(ActName::Resolve, time, actor, None, Some(reason)),
            Entry::Started { .. } | Entry::Completed {} | Entry::Compensated {} => {}
        }
    }

    fn step(&mut self, name: &str) -> Option<&mut Step> {
        self.steps.iter_mut().find(|step| step.name == name)
    }

    /// A step that failed keeps its place when a person has it tried again.
    fn answered(&mut self, step: Step) {
        match self.step(&step.name) {
            Some(before) => *before = Step { course: step.course.after(&before.course), ..step },
            None => self.steps.push(step),
        }
    }

    fn awoken(&mut self, name: &str, event: Option<Version>, time: Time) {
        let Some(step) = self.step(name) else { return };
        let in_time = event.is_some() || matches!(step.asked, Asked::Sleep { .. });
        step.outcome = if in_time { Outcome::Done } else { Outcome::TimedOut };
        step.course.took_ms = Some(time.0.saturating_sub(step.course.time.0));
        step.course.time = time;
    }

    fn undone(&mut self, name: &str, outcome: UndoOutcome, course: Course) {
        let Some(step) = self.step(name) else { return };
        let course = match &step.undo {
            Some(before) => course.after(&before.course),
            None => course,
        };
        step.undo = Some(Undo { outcome, course });
    }

    /// While a saga unwinds it is an undo that is left out, and else a step.
    fn skipped(&mut self, name: &str, reason: String, time: Time) {
        let course = Course { skipped_because: Some(reason), ..Course::at(time) };
        if self.reason.is_some() {
            return self.undone(name, UndoOutcome::Skipped, course);
        }
        if let Some(step) = self.step(name) {
            step.outcome = Outcome::Skipped;
            step.course = course.after(&step.course);
        }
    }

    fn act(&mut self, act: ActName, time: Time, actor: &Actor, step: Option<String>, reason: Option<String>) {
        if act != ActName::Resolve {
            (self.why, self.divergence) = (None, None);
        }
        self.acts.push(Acted { time, actor: actor.clone(), act, step, reason });
    }
}

impl Step {
    fn new(name: String, asked: Asked, outcome: Outcome, course: Course) -> Self {
        Self { name, asked, outcome, rejection: None, course, undo: None }
    }
}

impl Asked {
    fn step(Action { stream, command, .. }: Action) -> Self {
        Self::Step { stream, command: command.into() }
    }

    fn wait(wait: Wait, until: Time) -> Self {
        match wait {
            Wait::Sleep { .. } => Self::Sleep { until },
            Wait::Event { stream, events, .. } => Self::Wait { stream, events, until },
        }
    }
}

impl Course {
    fn at(time: Time) -> Self {
        Self { time, attempts: None, took_ms: None, error: None, skipped_because: None }
    }

    fn of(effort: Effort, time: Time) -> Self {
        Self { attempts: Some(effort.attempts), took_ms: Some(effort.took_ms), ..Self::at(time) }
    }

    /// With the attempts that were made before. What is left out keeps the error that led to it.
    fn after(mut self, before: &Self) -> Self {
        self.attempts = sum(self.attempts, before.attempts);
        self.took_ms = sum(self.took_ms, before.took_ms);
        if self.skipped_because.is_some() {
            self.error.clone_from(&before.error);
        }
        self
    }
}

fn sum<T: std::ops::Add<Output = T>>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
