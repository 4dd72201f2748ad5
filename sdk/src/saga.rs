use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::kontor::service::{services, steps};
use crate::services::Request;
use crate::{RecordedEvent, Rejection, json};

/// One run of a saga: a business transaction over several aggregates, as straight-line code.
///
/// The run sends commands and returns. When it returns a rejection, the host undoes what was done, newest first, and
/// last the command that started the saga. The host journals the answers by the steps' names: after a crash it runs the
/// code again from the first line and answers from the journal, so a run must ask the same steps given the same answers.
#[derive(Debug)]
pub struct Saga {
    /// The event that started it.
    pub trigger: RecordedEvent,
}

/// A command for an aggregate of any service.
#[derive(Clone, Debug)]
pub struct Command {
    aggregate: String,
    id: String,
    name: String,
    payload: String,
}

impl Command {
    /// The command `name` for the aggregate `id` of the kind `aggregate`, with a payload that is written as a JSON object.
    pub fn to(aggregate: &str, id: &str, name: &str, payload: impl Serialize) -> Self {
        Self {
            aggregate: aggregate.to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
            payload: json::text(&payload),
        }
    }

    fn named(self, name: impl Into<String>) -> steps::Action {
        steps::Action {
            name: name.into(),
            aggregate: self.aggregate,
            id: self.id,
            command: self.name,
            payload: self.payload,
        }
    }
}

/// What an accepted command did.
#[derive(Clone, Debug)]
pub struct Outcome(steps::Outcome);

impl Outcome {
    /// The version of the aggregate's stream after it.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// The view of the aggregate after it, none if the aggregate does not exist. Panics, which is a fault, if the view
    /// is no `T`.
    pub fn view<T: DeserializeOwned>(&self) -> Option<T> {
        self.0.view.as_deref().map(|view| read(view, "the view after a step"))
    }
}

impl Saga {
    /// Sends one command and waits until its events are on disk. The name is unique within the saga.
    pub fn step(&self, name: impl Into<String>, command: Command) -> Result<Outcome, Rejection> {
        steps::step(&command.named(name)).map(Outcome).map_err(Into::into)
    }

    /// Sends several commands at once, each with its step's name. The first rejection in their order is the answer when
    /// there is one; all that were accepted are undone in that case.
    pub fn steps<N: Into<String>>(
        &self,
        commands: impl IntoIterator<Item = (N, Command)>,
    ) -> Result<Vec<Outcome>, Rejection> {
        let actions: Vec<_> = commands.into_iter().map(|(name, command)| command.named(name)).collect();
        steps::steps(&actions).into_iter().map(|answer| answer.map(Outcome).map_err(Into::into)).collect()
    }

    /// Sends the command that decides: once it is accepted, nothing is undone any more, and every later step is
    /// repeated until it is accepted.
    pub fn pivot(&self, name: impl Into<String>, command: Command) -> Result<Outcome, Rejection> {
        steps::pivot(&command.named(name)).map(Outcome).map_err(Into::into)
    }

    /// Asks a service once, under a step's name; the answer is the same on every replay.
    pub fn query<T: DeserializeOwned>(&self, name: &str, request: Request) -> Result<T, Rejection> {
        let services::Request { service, query, .. } = &request.0;
        let what = format!("the answer of {service} to {query}");
        steps::query(name, &request.0).map(|answer| read(&answer, &what)).map_err(Into::into)
    }

    /// Goes on after some time, restarts of the host included.
    pub fn sleep(&self, name: &str, duration: Duration) {
        steps::sleep(name, milliseconds(duration));
    }

    /// Waits for the first of these events on an aggregate after the saga's trigger; none when the time is up first.
    pub fn wait_for(
        &self,
        name: &str,
        aggregate: &str,
        id: &str,
        events: &[&str],
        at_most: Duration,
    ) -> Option<RecordedEvent> {
        let awaited = steps::Awaited {
            aggregate: aggregate.to_owned(),
            id: id.to_owned(),
            events: events.iter().map(|event| (*event).to_owned()).collect(),
        };
        steps::wait_for(name, &awaited, milliseconds(at_most))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn read<T: DeserializeOwned>(text: &str, what: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{what} cannot be read: {error}"))
}
