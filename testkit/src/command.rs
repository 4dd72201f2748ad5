//! Commands for tests.

use std::fmt;

use kontor::model::StreamId;
use serde_json::Value;

/// A command for an aggregate, created by [`command`].
#[derive(Clone, PartialEq)]
pub struct Command {
    pub(crate) stream: StreamId,
    pub(crate) name: String,
    pub(crate) payload: Value,
}

/// Returns the command `name` for the aggregate `id` of the kind `aggregate`.
#[track_caller]
pub fn command(aggregate: &str, id: &str, name: &str, payload: Value) -> Command {
    Command { stream: stream(aggregate, id), name: name.to_owned(), payload }
}

/// Returns the stream of an aggregate. Fails the test if its name is invalid.
#[track_caller]
pub(crate) fn stream(aggregate: &str, id: &str) -> StreamId {
    match StreamId::new(aggregate, id) {
        Ok(stream) => stream,
        Err(error) => panic!("{aggregate}/{id}: {error}"),
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on {}", self.name, self.payload, self.stream)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
