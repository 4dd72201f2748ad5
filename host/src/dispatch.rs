//! STUB, being written. The only writer of domain events.

use std::sync::Arc;

use crate::error::CallError;
use crate::model::{Command, Json, Position, StreamId, Version};
use crate::saga::SagaId;

/// The answer to a command that took effect, now or when it was sent first.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub stream: StreamId,
    /// The stream's version after the command.
    pub version: Version,
    /// The position of the command's last event; of the log if it caused none.
    pub position: Position,
    /// The names of its events.
    pub events: Vec<Arc<str>>,
    /// The view of the aggregate after it.
    pub view: Option<Json>,
    /// The saga that its events started, if any.
    pub saga: Option<SagaId>,
}

/// The view of an aggregate at one version.
#[derive(Clone, Debug)]
pub struct Viewed {
    pub version: Version,
    pub view: Json,
}

pub struct Dispatch {}

impl Dispatch {
    /// Carries out a command; returns when its events are on disk.
    pub async fn submit(&self, _command: Command) -> Result<Accepted, CallError> {
        todo!()
    }

    /// The view of an aggregate now, or at a version of the past; none if it does not exist (then).
    pub async fn view(&self, _stream: &StreamId, _at: Option<Version>) -> Result<Option<Viewed>, CallError> {
        todo!()
    }
}
