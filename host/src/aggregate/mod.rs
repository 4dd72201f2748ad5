//! The whole way of a command: `dispatch` has it decided and appended, `states` loads and caches the states
//! of aggregates.

mod check;
mod dispatch;
mod error;
mod states;

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::SharedClock;
use crate::deployed::Registry;
use crate::log::EventLog;
use crate::model::{Command, Json, NewEvent, Position, SagaId, StreamId, Version};
use crate::runtime::{Ask, Outgoing};

pub use dispatch::Dispatch;
pub use error::CommandError;
pub use states::{StateCache, Viewed};

/// The parts of the host that [`Dispatch`] uses.
pub struct DispatchDeps {
    /// The log that commands are appended to.
    pub log: Arc<dyn EventLog>,
    /// The states of aggregates.
    pub states: Arc<StateCache>,
    /// The components that serve.
    pub registry: Arc<Registry>,
    /// Answers the queries of components that decide.
    pub ask: Arc<dyn Ask>,
    /// Sends the HTTP requests of components that decide.
    pub http: Arc<dyn Outgoing>,
    /// Gives the time of each command.
    pub clock: SharedClock,
}

/// The maximum numbers of waiting commands.
#[derive(Clone, Debug)]
pub struct DispatchLimits {
    /// In the whole host, including commands that are being processed.
    pub commands: usize,
    /// For one aggregate.
    pub aggregate: usize,
}

impl Default for DispatchLimits {
    fn default() -> Self {
        Self { commands: 4_096, aggregate: 1_024 }
    }
}

/// The answer to a command that took effect, now or when it was sent first.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The aggregate's stream.
    pub stream: StreamId,
    /// The stream's version after the command.
    pub version: Version,
    /// The position of the command's last event, or of the log's head if it caused none.
    pub position: Position,
    /// The command's events, oldest first.
    pub events: Vec<NewEvent>,
    /// The view of the aggregate after the command.
    pub view: Option<Json>,
    /// The saga that its events started, if any.
    pub saga: Option<SagaId>,
}

/// Executes commands: [`Dispatch`], or a test that makes something fail on the way to it.
#[async_trait]
pub trait Submit: Send + Sync {
    /// Executes a command; see [`Dispatch::submit`].
    async fn submit(&self, command: Command) -> Result<Accepted, CommandError>;
}

#[async_trait]
impl Submit for Dispatch {
    async fn submit(&self, command: Command) -> Result<Accepted, CommandError> {
        Dispatch::submit(self, command).await
    }
}
