//! The entries of a saga's journal.
//!
//! | event | meaning |
//! |---|---|
//! | `started` | the run begins, on this component, because of this event |
//! | `step-done` | a command of the saga was accepted |
//! | `step-refused` | a command of the saga was rejected |
//! | `step-failed` | a command was neither accepted nor rejected in all its attempts |
//! | `pivoted` | the deciding command was accepted: from here the saga only goes forward |
//! | `query-answered` | another service answered a query |
//! | `continued-as-new` | the run begins anew, with this progress; what was done before is final |
//! | `waiting` | the saga sleeps, or waits for an event; nothing of it runs |
//! | `awoken` | the time is over, or the event is there |
//! | `unwinding` | the run returned a rejection, or a step failed for good: its steps are being undone |
//! | `undone` | one step has been undone |
//! | `not-undone` | one step is not undone, because its command has no compensation |
//! | `undo-failed` | one step cannot be undone; the others are still undone, then the saga parks |
//! | `parked` | the saga needs an operator, or, if by a fault of its code, a component that mends it |
//! | `taken` | this host runs it from now on; only where several hosts share the log |
//! | `moved` | the saga continues on another version of its component |
//! | `resumed` | an operator retries it |
//! | `skipped` | an operator leaves out one step or undo, and the saga continues |
//! | `resolved` | an operator has settled it by hand: the end |
//! | `completed` · `compensated` | the end |

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::model::{Digest, Json, NodeId, Rejection, SagaName, ServiceName, StreamId, Version};
use crate::runtime::{self, Action, Outcome};

/// A query as the journal keeps it: without its time limit, which may change from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The service that is queried.
    pub(crate) service: String,
    /// The query's name.
    pub(crate) query: String,
    /// The query's arguments.
    pub(crate) arguments: Json,
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

/// A wait of a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wait {
    /// For a time.
    Sleep { duration_ms: u64 },
    /// For the first of these events on a stream, after the saga's trigger in the log.
    Event {
        stream: StreamId,
        events: Vec<String>,
        timeout_ms: u64,
        /// Only an event after this version of the stream counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Version>,
    },
}

impl Wait {
    /// Returns the awaited events and their stream, or `None` if the saga only sleeps.
    pub(crate) fn event(&self) -> Option<(StreamId, Vec<String>)> {
        match self {
            Self::Sleep { .. } => None,
            Self::Event { stream, events, .. } => Some((stream.clone(), events.clone())),
        }
    }
}

/// The attempts that led to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptStats {
    /// The number of attempts, from 1.
    pub(crate) attempts: u32,
    /// The time from the first attempt to the answer, pauses included.
    pub(crate) took_ms: u64,
}

/// The event that started a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trigger {
    pub(crate) stream: StreamId,
    pub(crate) version: Version,
}

/// The two sides of a replay that asks for something other than its journal has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SagaDivergence")]
pub struct Divergence {
    /// The command, query or wait that the journal has under the step's name.
    pub journaled: Json,
    /// The one that the component asks for; null if it does not reach the step any more.
    pub asked: Json,
}

/// One event of a journal. The stored event's name is the variant's, its payload the variant's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
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
        effort: AttemptStats,
    },
    /// Its stored name says refused; elsewhere such a step is called rejected.
    #[serde(rename = "step-refused")]
    #[strum(serialize = "step-refused")]
    StepRejected {
        name: String,
        action: Action,
        rejection: Rejection,
        effort: AttemptStats,
    },
    StepFailed {
        name: String,
        action: Action,
        error: String,
        effort: AttemptStats,
    },
    Pivoted {
        name: String,
        action: Action,
        outcome: Outcome,
        effort: AttemptStats,
    },
    QueryAnswered {
        name: String,
        request: Request,
        answer: Result<Json, Rejection>,
        effort: AttemptStats,
    },
    ContinuedAsNew {
        progress: Json,
    },
    Waiting {
        name: String,
        wait: Wait,
        /// Milliseconds since 1970-01-01 UTC.
        until_ms: u64,
    },
    Awoken {
        name: String,
        /// The version of the awaited event, or `None` if the time was over first.
        event: Option<Version>,
    },
    Unwinding {
        reason: Rejection,
    },
    Undone {
        name: String,
        effort: AttemptStats,
    },
    NotUndone {
        name: String,
    },
    UndoFailed {
        name: String,
        error: String,
        effort: AttemptStats,
    },
    Parked {
        why: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        divergence: Option<Divergence>,
        /// True if the saga's code is at fault.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_fault: bool,
    },
    Taken {
        node: NodeId,
    },
    Moved {
        digest: Digest,
    },
    Resumed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
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

/// The characters of a reason to park that the journal keeps: an entry that parks always fits into the log.
const MAX_WHY: usize = 1_000;

impl Entry {
    /// Returns the entry that parks a saga for this reason.
    pub(crate) fn parked(why: &str) -> Self {
        Self::Parked { why: why.chars().take(MAX_WHY).collect(), divergence: None, by_fault: false }
    }

    /// Returns the entry that parks a saga whose code is at fault.
    pub(crate) fn parked_by_fault(why: &str) -> Self {
        Self::Parked { why: why.chars().take(MAX_WHY).collect(), divergence: None, by_fault: true }
    }

    /// Returns the name of the stored event: `step-done`.
    pub(crate) fn name(&self) -> &'static str {
        self.into()
    }
}
