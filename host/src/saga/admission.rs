//! The admission of commands from outside: a service whose sagas do not get on takes no more commands, which
//! would start others.

use std::sync::Arc;

use async_trait::async_trait;

use super::Sagas;
use crate::aggregate::{Accepted, CommandError, Dispatch, Submit};
use crate::deployed::Registry;
use crate::model::Command;

/// The most sagas of a service that wait for their turn: each is a handle in memory, and minutes of work.
const MAX_WAITING: usize = 10_000;

/// Admits the commands of clients and of messages, and hands them on. Those of sagas are not asked: they
/// have to get on.
pub struct Admission {
    /// Takes the commands.
    pub dispatch: Arc<Dispatch>,
    /// The running services.
    pub registry: Arc<Registry>,
    /// The sagas.
    pub sagas: Arc<Sagas>,
}

impl Admission {
    /// Fails if too many sagas of the aggregate's service wait already. Those of other services do
    /// not count.
    pub fn check(&self, aggregate: &str) -> Result<(), CommandError> {
        let deployed = self.registry.current();
        let waiting = deployed.owner(aggregate).map_or(0, |component| {
            let manifest = component.manifest();
            if manifest.sagas.is_empty() { 0 } else { self.sagas.waiting(manifest.service.as_str()) }
        });
        match waiting >= MAX_WAITING {
            true => Err(CommandError::Busy { queue: "the queue of the service's sagas" }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Submit for Admission {
    async fn submit(&self, command: Command) -> Result<Accepted, CommandError> {
        self.check(command.stream.aggregate())?;
        self.dispatch.submit(command).await
    }
}
