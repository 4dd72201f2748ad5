//! The timeline of a saga, for operators. Pure: folded from its journal.

use serde::{Deserialize, Serialize};

use super::entry::{AttemptStats, Entry, Wait};
use super::index::SagaHandle;
use super::journal::{STEP_ZERO, SagaState, next_state};
use super::record::RecordError;
use crate::clock::Time;
use crate::model::{
    Actor, CommandName, Digest, EventName, Meta, NodeId, QueryName, Recorded, Rejection, SagaId, SagaName,
    ServiceName, StreamId, Version, variant_of,
};
use crate::runtime::Action;

pub use super::entry::Divergence;

/// One saga from its trigger to its present state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaTimeline")]
pub struct Timeline {
    /// The saga's id.
    pub id: SagaId,
    /// The service that it belongs to.
    pub service: ServiceName,
    /// The saga's name: `place-order`.
    pub name: SagaName,
    /// The state that it is in.
    pub state: SagaState,
    /// The component that it runs on; `None` before it has begun.
    pub digest: Option<Digest>,
    /// The host that runs it, or ran it last, where several share the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<NodeId>,
    /// The event that started it.
    pub trigger: Trigger,
    /// The caller that started it.
    pub started_by: StartedBy,
    /// The time at which the trigger was recorded.
    pub started: Time,
    /// The time of its last entry; `None` if it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// The reason for unwinding, if it unwinds or unwound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Rejection>,
    /// The reason why it is parked, was parked when an operator resolved it, or cannot run at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// True if it is parked because its code is at fault: it continues once a component that mends it is
    /// deployed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_fault: bool,
    /// Set if it is parked because its replay diverged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// The steps that failed, or whose undo failed: while it is parked, an operator may skip them.
    pub failed: Vec<String>,
    /// The number of times that it has continued as new.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub continued: u32,
    /// Step zero first, the others in the order in which they were answered, since it continued as new.
    pub steps: Vec<Step>,
    /// The acts of operators, oldest first, and the retries that follow from a deployment.
    pub acts: Vec<Acted>,
}

/// The caller that started a saga, for which it acts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaStarter")]
pub struct StartedBy {
    /// The sender of the command; `anonymous` if nobody had signed in.
    pub actor: Actor,
    /// The user for whom the actor said it acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Actor>,
    /// The saga or the message through which the actor acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Actor>,
}

impl StartedBy {
    /// Returns the sender of the command that recorded the trigger.
    pub(super) fn of(trigger: &Recorded) -> Self {
        let Meta { actor, on_behalf_of, via, .. } = &*trigger.meta;
        Self { actor: actor.clone(), on_behalf_of: on_behalf_of.clone(), via: via.clone() }
    }
}

/// The event that started a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaTrigger")]
pub struct Trigger {
    /// The event's stream.
    pub stream: StreamId,
    /// The event's version in its stream.
    pub version: Version,
    /// The event's name: `order-created`.
    pub event: EventName,
}

/// A step of a saga, with its undo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaStep")]
pub struct Step {
    /// The step's name, unique in the saga; that of step zero is `trigger`.
    pub name: String,
    /// The command, query or wait.
    #[serde(flatten)]
    pub asked: Asked,
    /// The outcome so far.
    pub outcome: Outcome,
    /// The answer to a step that was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    /// The attempts that led to the outcome.
    #[serde(flatten)]
    pub course: Course,
    /// The step's undo; `None` if it has not been undone, or there is nothing to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Undo>,
}

/// The kind of a step. A deciding command that was rejected or failed is a `step`: only its acceptance makes
/// it the pivot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Asked {
    /// A command.
    Step {
        /// The aggregate that the command was for.
        stream: StreamId,
        /// The command's name.
        command: CommandName,
    },
    /// The deciding command.
    Pivot {
        /// The aggregate that the command was for.
        stream: StreamId,
        /// The command's name.
        command: CommandName,
    },
    /// A query.
    Query {
        /// The service that was queried.
        service: ServiceName,
        /// The query's name.
        query: QueryName,
    },
    /// A wait for a time.
    Sleep {
        /// The end of the wait.
        until: Time,
    },
    /// A wait for an event.
    Wait {
        /// The stream of the event.
        stream: StreamId,
        /// The names of the awaited events.
        events: Vec<String>,
        /// The end of the wait, if none of them happens.
        until: Time,
    },
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaStepOutcome")]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The command was accepted, or the wait has ended.
    Done,
    /// The command or the query was rejected. In JSON: `refused`.
    Refused,
    /// The command was neither accepted nor rejected in all its attempts.
    Failed,
    /// An operator has skipped it.
    Skipped,
    /// The time is not over, or the event not there yet.
    Waiting,
    /// The query was answered.
    Answered,
    /// The time was over before the event was there.
    TimedOut,
}

/// The undo of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaUndo")]
pub struct Undo {
    /// The outcome so far.
    pub outcome: UndoOutcome,
    /// The attempts that led to the outcome.
    #[serde(flatten)]
    pub course: Course,
}

/// The outcome of an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaUndoOutcome")]
#[serde(rename_all = "kebab-case")]
pub enum UndoOutcome {
    /// The step is undone.
    Done,
    /// The undo was not accepted in all its attempts.
    Failed,
    /// An operator has skipped it.
    Skipped,
    /// The step's command has no compensation: its effect, if it had one, stays.
    NotCompensable,
}

/// The attempts that led to the outcome of a step or an undo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct Course {
    /// The time at which the outcome was journaled; of a wait that has not ended, the time at which it began.
    pub time: Time,
    /// The number of all attempts, including those before an operator's retry; `None` if nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The duration of the attempts or of the wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The error of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The operator's reason for skipping it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_because: Option<String>,
}

/// An operator's act on a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaAct")]
pub struct Acted {
    /// The time of the act.
    pub time: Time,
    /// The operator's name; that of the saga if it continues by itself after a deployment.
    pub actor: Actor,
    /// The kind of the act.
    pub act: ActName,
    /// The step that was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The operator's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The kind of an operator's act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaActName")]
#[serde(rename_all = "kebab-case")]
pub enum ActName {
    /// The failed steps or undos are retried.
    Retry,
    /// A failed step or undo is left out.
    Skip,
    /// The saga ends: the operator has settled everything by hand.
    Resolve,
}

impl Timeline {
    /// Folds a journal, which is empty if the saga has not begun.
    pub(super) fn of(
        handle: &SagaHandle,
        trigger: &Recorded,
        journal: &[Recorded],
    ) -> Result<Self, RecordError> {
        let mut timeline = Self::triggered(handle, trigger);
        let mut saga = None;
        for event in journal {
            let entry = variant_of(event.name.as_str(), &event.payload)?;
            saga = Some(next_state(saga, &entry)?);
            timeline.apply(entry, Time(event.meta.time_ms), &event.meta.actor);
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

    fn triggered(handle: &SagaHandle, trigger: &Recorded) -> Self {
        let (stream, command) = (trigger.stream.clone(), trigger.meta.command.clone());
        let started = Time(trigger.meta.time_ms);
        Self {
            id: handle.id.clone(),
            service: handle.service.clone(),
            name: handle.name.clone(),
            state: SagaState::Running,
            digest: None,
            runner: None,
            trigger: Trigger {
                stream: stream.clone(),
                version: trigger.version,
                event: trigger.name.clone(),
            },
            started_by: StartedBy::of(trigger),
            started,
            ended: None,
            reason: None,
            why: None,
            by_fault: false,
            divergence: None,
            failed: Vec::new(),
            continued: 0,
            steps: vec![Step::new(
                STEP_ZERO.to_owned(),
                Asked::Step { stream, command },
                Outcome::Done,
                Course::at(started),
            )],
            acts: Vec::new(),
        }
    }

    fn apply(&mut self, entry: Entry, time: Time, actor: &Actor) {
        match entry {
            Entry::StepDone { name, action, effort, .. } => {
                self.answered(Step::new(name, Asked::step(action), Outcome::Done, Course::of(effort, time)));
            }
            Entry::Pivoted { name, action: Action { stream, command, .. }, effort, .. } => {
                let asked = Asked::Pivot { stream, command: command.into() };
                self.answered(Step::new(name, asked, Outcome::Done, Course::of(effort, time)));
            }
            Entry::StepRejected { name, action, rejection, effort } => {
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
            Entry::NotUndone { name } => {
                self.undone(&name, UndoOutcome::NotCompensable, Course::at(time));
            }
            Entry::UndoFailed { name, error, effort } => {
                let course = Course { error: Some(error), ..Course::of(effort, time) };
                self.undone(&name, UndoOutcome::Failed, course);
            }
            Entry::ContinuedAsNew { .. } => {
                self.continued += 1;
                self.steps.truncate(1);
            }
            Entry::Unwinding { reason } => self.reason = Some(reason),
            Entry::Parked { why, divergence, by_fault } => {
                (self.why, self.divergence, self.by_fault) = (Some(why), divergence, by_fault);
            }
            // The timeline has only the last component and host.
            Entry::Moved { .. } | Entry::Taken { .. } => {}
            Entry::Resumed { reason } => self.act(ActName::Retry, time, actor, None, reason),
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

    /// Adds a step, or replaces it after a retry: it keeps its place.
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

    /// Marks an undo as skipped if the saga unwinds, else a step.
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
            (self.why, self.divergence, self.by_fault) = (None, None, false);
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

    fn of(effort: AttemptStats, time: Time) -> Self {
        Self { attempts: Some(effort.attempts), took_ms: Some(effort.took_ms), ..Self::at(time) }
    }

    /// Adds the attempts that were made before. A skipped step keeps the error that led to it.
    fn after(mut self, before: &Self) -> Self {
        self.attempts = sum(self.attempts, before.attempts);
        self.took_ms = sum(self.took_ms, before.took_ms);
        if self.skipped_because.is_some() {
            self.error.clone_from(&before.error);
        }
        self
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn sum<T: std::ops::Add<Output = T>>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
