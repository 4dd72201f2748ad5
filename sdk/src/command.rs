//! A command as a value, to be sent by a saga.

use serde::Serialize;

use crate::bindings::kontor::service::steps;
use crate::json;

/// A command for an aggregate of any service.
#[derive(Clone, Debug)]
pub struct Command {
    pub(crate) aggregate: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) payload: String,
}

impl Command {
    /// Makes a command for another service's aggregate from its name and its payload, which is written as a
    /// JSON object.
    ///
    /// A command for an aggregate of the service itself is made with
    /// [`Aggregate::command`](crate::Aggregate::command).
    pub fn to(aggregate: &str, id: &str, name: &str, payload: impl Serialize) -> Self {
        Self {
            aggregate: aggregate.to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
            payload: json::text(&payload),
        }
    }

    /// The command as a step of this name.
    pub(crate) fn into_action(self, step: impl Into<String>) -> steps::Action {
        steps::Action {
            name: step.into(),
            aggregate: self.aggregate,
            id: self.id,
            command: self.name,
            payload: self.payload,
        }
    }
}
