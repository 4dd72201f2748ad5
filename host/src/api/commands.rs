//! Commands: the reply, which is the same over HTTP and over NATS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{EventName, Json, Position, SagaId, Version};
use crate::saga::SagaState;

/// The reply to a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandReply {
    /// The id of the aggregate.
    pub id: String,
    /// The version of the aggregate.
    pub version: Version,
    /// The position in the log that covers the command. A query with this position in `Kontor-Position` sees
    /// its effect.
    pub position: Position,
    /// The names of the events that the command recorded, in their order.
    pub events: Vec<EventName>,
    /// The aggregate's view; null if there is none.
    pub state: Option<Json>,
    /// The saga that the command started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<SagaRef>,
}

/// A saga that a command started, as known when the reply is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SagaRef {
    /// The id of the saga, for `/sagas/{id}`.
    pub id: SagaId,
    /// Its state.
    pub state: SagaState,
}
