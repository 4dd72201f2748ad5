//! The names of commands and events across services: `payment.authorize`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::model::{AggregateName, CommandName, EventName};

/// A kind of event, of this service or of another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventRef {
    /// The aggregate.
    pub aggregate: AggregateName,
    /// The name of the event.
    pub event: EventName,
}

/// A kind of command, of this service or of another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CommandRef {
    /// The aggregate.
    pub aggregate: AggregateName,
    /// The name of the command.
    pub command: CommandName,
}

/// The error of a text that is no name of a command or an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a kind of aggregate, a point, and the name of its command or event")]
pub struct InvalidRef(String);

impl EventRef {
    /// Returns the event of an aggregate.
    pub fn new(aggregate: &str, event: &str) -> Self {
        Self { aggregate: aggregate.into(), event: event.into() }
    }
}

impl CommandRef {
    /// Returns the command of an aggregate.
    pub fn new(aggregate: &str, command: &str) -> Self {
        Self { aggregate: aggregate.into(), command: command.into() }
    }
}

impl fmt::Display for EventRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.aggregate, self.event)
    }
}

impl fmt::Display for CommandRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.aggregate, self.command)
    }
}

impl FromStr for EventRef {
    type Err = InvalidRef;

    fn from_str(text: &str) -> Result<Self, InvalidRef> {
        split(text).map(|(aggregate, event)| Self::new(aggregate, event))
    }
}

impl FromStr for CommandRef {
    type Err = InvalidRef;

    fn from_str(text: &str) -> Result<Self, InvalidRef> {
        split(text).map(|(aggregate, command)| Self::new(aggregate, command))
    }
}

fn split(text: &str) -> Result<(&str, &str), InvalidRef> {
    let parts = text.split_once('.').filter(|(aggregate, name)| !aggregate.is_empty() && !name.is_empty());
    parts.ok_or_else(|| InvalidRef(text.to_owned()))
}

/// Reads a list of names in a configuration.
pub(super) fn names<'de, D: Deserializer<'de>, T: FromStr<Err = InvalidRef>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let names: Vec<String> = Vec::deserialize(deserializer)?;
    names.iter().map(|name| name.parse().map_err(de::Error::custom)).collect()
}
