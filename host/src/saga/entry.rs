//! What stands in the journal of a saga.
//!
//! | event | meaning |
//! |---|---|
//! | `started` | the run begins, on this component, because of this event |
//! | `step-done` | a command of the saga was accepted |
//! | `step-refused` | a command of the saga was rejected |
//! | `step-failed` | a command got neither done nor refused in all its attempts |
//! | `pivoted` | the deciding command was accepted: from here the saga only goes forward |
//! | `query-answered` | another service was asked |
//! | `waiting` | the saga sleeps, or waits for an event; nothing of it runs |
//! | `awoken` | the time is over, or the event is there |
//! | `unwinding` | the run returned a rejection, or a step failed for good: what was done is being undone |
//! | `undone` | one step has been undone |
//! | `undo-failed` | one step cannot be undone; the others are still undone, then the saga parks |
//! | `parked` | the saga needs a person |
//! | `taken` | this host runs it from now on; only where several share the log |
//! | `moved` | another version of the component was deployed, and goes on with it |
//! | `resumed` | a person has it tried again |
//! | `skipped` | a person has one step or undo left out, and the saga goes on |
//! | `resolved` | a person has seen to it by hand: the end |
//! | `completed` · `compensated` | the end |

use serde::{Deserialize, Serialize};

use crate::model::{
    Digest, EventName, Json, NewEvent, NodeId, Rejection, SagaName, ServiceName, StreamId, Version,
};
use crate::runtime;

/// A command as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Action {
    pub(crate) stream: StreamId,
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
    pub(crate) name: EventName,
    pub(crate) payload: Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) service: String,
    pub(crate) query: String,
    pub(crate) arguments: Json,
}

/// What a saga waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wait {
    /// For the time to pass.
    Sleep { duration_ms: u64 },
    /// For the first of these events on a stream, after the saga's trigger in the log.
    Event { stream: StreamId, events: Vec<String>, timeout_ms: u64 },
}

impl Wait {
    /// The events, and the stream that they are waited for on; none if it is only for the time.
    pub(crate) fn event(&self) -> Option<(StreamId, Vec<String>)> {
        match self {
            Self::Sleep { .. } => None,
            Self::Event { stream, events, .. } => Some((stream.clone(), events.clone())),
        }
    }
}

/// What it took to get an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Effort {
    /// How often it was tried, from 1.
    pub(crate) attempts: u32,
    /// From the first attempt to the answer, pauses included.
    pub(crate) took_ms: u64,
}

/// The event that started a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trigger {
    pub(crate) stream: StreamId,
    pub(crate) version: Version,
}

/// A replay that asks for something else than the run before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// What the journal has under the step's name.
    pub journaled: Json,
    /// What the component asks for; null if it does not come to the step any more.
    pub asked: Json,
}

/// One event of a journal. The stored event's name is the variant's, its payload the variant's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Entry {
    Started {
        service: ServiceName,
        saga: SagaName,
        digest: Digest,
        trigger: Trigger,
    },
    StepDone {
        name: String,
        action: Action,
        outcome: Outcome,
        effort: Effort,
    },
    StepRefused {
        name: String,
        action: Action,
        rejection: Rejection,
        effort: Effort,
    },
    StepFailed {
        name: String,
        action: Action,
        error: String,
        effort: Effort,
    },
    Pivoted {
        name: String,
        action: Action,
        outcome: Outcome,
        effort: Effort,
    },
    QueryAnswered {
        name: String,
        request: Request,
        answer: Result<Json, Rejection>,
        effort: Effort,
    },
    Waiting {
        name: String,
        wait: Wait,
        /// Milliseconds since 1970-01-01 UTC.
        until_ms: u64,
    },
    Awoken {
        name: String,
        /// The version of the event that was waited for; none if the time was over first.
        event: Option<Version>,
    },
    Unwinding {
        reason: Rejection,
    },
    Undone {
        name: String,
        effort: Effort,
    },
    UndoFailed {
        name: String,
        error: String,
        effort: Effort,
    },
    Parked {
        why: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        divergence: Option<Divergence>,
    },
    Taken {
        node: NodeId,
    },
    Moved {
        digest: Digest,
    },
    Resumed {},
    Skipped {
        name: String,
        reason: String,
    },
    Resolved {
        reason: String,
    },
    Completed {},
    Compensated {},
}

impl Entry {
    /// The name of the stored event: `step-done`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::StepDone { .. } => "step-done",
            Self::StepRefused { .. } => "step-refused",
            Self::StepFailed { .. } => "step-failed",
            Self::Pivoted { .. } => "pivoted",
            Self::QueryAnswered { .. } => "query-answered",
            Self::Waiting { .. } => "waiting",
            Self::Awoken { .. } => "awoken",
            Self::Unwinding { .. } => "unwinding",
            Self::Undone { .. } => "undone",
            Self::UndoFailed { .. } => "undo-failed",
            Self::Parked { .. } => "parked",
            Self::Taken { .. } => "taken",
            Self::Moved { .. } => "moved",
            Self::Resumed {} => "resumed",
            Self::Skipped { .. } => "skipped",
            Self::Resolved { .. } => "resolved",
            Self::Completed {} => "completed",
            Self::Compensated {} => "compensated",
        }
    }
}

impl From<&runtime::Step> for Action {
    fn from(step: &runtime::Step) -> Self {
        Self { stream: step.stream.clone(), command: step.command.clone(), payload: step.payload.clone() }
    }
}

impl From<&runtime::Request> for Request {
    fn from(request: &runtime::Request) -> Self {
        Self {
            service: request.service.clone(),
            query: request.query.clone(),
            arguments: request.arguments.clone(),
        }
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

impl Outcome {
    /// What a step that was left out did.
    pub(crate) fn nothing() -> Self {
        Self { version: Version::START, events: Vec::new(), view: None }
    }
}
