//! Given events, when a command, then events: on the component itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a check that fails is a test that fails"
)]

mod difference;
mod http;
mod outcome;
mod performance;
mod reading;
mod saga;
mod schema;
mod script;
mod story;
mod trial;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use kontor::model::{
    Caller, CommandId, CommitHash, Json, Meta, NewEvent, Position, Recorded, Rejection, Role, StreamId,
    Version,
};
use serde_json::Value;

use crate::command::stream;
use crate::components::{self, Bench};

use http::HttpScript;
use script::Script;
use trial::{ACTOR, Action, Trial};

pub use http::Sent;
pub use outcome::Outcome;
pub use reading::{History, Reading};
pub use saga::{Saga, Step};
pub use story::Story;

/// A service's component, and the test's answers for the world around it. Tests are plain functions: an async
/// test cannot wait in here.
pub struct Service {
    name: String,
    wasm: Vec<u8>,
    config: BTreeMap<String, Json>,
    caller: Caller,
    script: Script,
    http: HttpScript,
    /// Created by the first `when`, once the configuration is known. The error is a sentence.
    bench: OnceLock<Result<Bench, String>>,
}

/// An event of a test, created by [`event`].
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    name: String,
    payload: Value,
}

/// Returns an event that happened or is expected.
pub fn event(name: &str, payload: Value) -> Event {
    Event { name: name.to_owned(), payload }
}

/// One aggregate and its events so far.
#[derive(Clone)]
pub struct Aggregate<'a> {
    service: &'a Service,
    stream: StreamId,
    given: Vec<Event>,
}

impl Service {
    /// Loads the component of a service in this workspace: `target/plugins/<name>.wasm`, or in the folder
    /// that the environment variable `KONTOR_COMPONENTS` names. If that file does not exist, loads the output
    /// of `cargo build --release --target wasm32-wasip2` for the package.
    #[track_caller]
    pub fn load(name: &str) -> Self {
        Self::new(name, components::built(name))
    }

    /// Loads a component from any path.
    #[track_caller]
    pub fn from_file(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let wasm = match fs::read(path) {
            Ok(wasm) => wasm,
            Err(error) => panic!("{}: {error}\n`cargo xtask build` builds the components", path.display()),
        };
        Self::new(&path.file_stem().unwrap_or_default().to_string_lossy(), wasm)
    }

    fn new(name: &str, wasm: Vec<u8>) -> Self {
        let (name, script, http) = (name.to_owned(), Script::default(), HttpScript::default());
        let caller = Caller { subject: Some(ACTOR.into()), ..Caller::unauthenticated_operator() };
        Self { name, wasm, config: BTreeMap::new(), caller, script, http, bench: OnceLock::new() }
    }

    /// Sets a value that the operator has configured for the service.
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), json_of(&value));
        Self { bench: OnceLock::new(), ..self }
    }

    /// Sets the caller of all commands and queries: its subject and its roles. Default: an operator, who may
    /// do everything.
    pub fn called_by(self, subject: &str, roles: &[&str]) -> Self {
        let roles = roles.iter().map(|role| Role::from(*role)).collect();
        Self { caller: Caller { roles, ..Caller::named(subject) }, ..self }
    }

    /// Sets the answer of `service` to its query `query` with these arguments. A query without an answer
    /// fails the test.
    pub fn answers(mut self, service: &str, query: &str, arguments: Value, answer: Value) -> Self {
        self.script.add(service, query, arguments, Ok(json_of(&answer)));
        self
    }

    /// Makes `service` reject its query `query` with these arguments, with this code.
    pub fn refuses(mut self, service: &str, query: &str, arguments: Value, code: &str) -> Self {
        self.script.add(service, query, arguments, Err(rejection(code)));
        self
    }

    /// Makes `service` unavailable: it is not deployed, failed, or took too long.
    pub fn is_silent(mut self, service: &str) -> Self {
        self.script.silence(service);
        self
    }

    /// Sets the JSON answer to an HTTP request. A request without an answer fails the test; [`Outcome::sent`]
    /// lists the requests.
    pub fn answers_http(mut self, method: &str, url: &str, status: u16, body: Value) -> Self {
        self.http.add(method, url, Some((status, body)));
        self
    }

    /// Leaves an HTTP request without any answer.
    pub fn is_silent_http(mut self, method: &str, url: &str) -> Self {
        self.http.add(method, url, None);
        self
    }

    /// Selects the aggregate of this kind with this id. It does not exist until events are given.
    #[track_caller]
    pub fn aggregate(&self, kind: &str, id: &str) -> Aggregate<'_> {
        Aggregate { service: self, stream: stream(kind, id), given: Vec::new() }
    }

    fn bench(&self) -> Result<&Bench, String> {
        let bench = self.bench.get_or_init(|| Bench::new(&self.name, &self.wasm, &self.config));
        bench.as_ref().map_err(Clone::clone)
    }
}

impl Aggregate<'_> {
    /// Adds events that happened, after those given before.
    pub fn given(mut self, events: impl IntoIterator<Item = Event>) -> Self {
        self.given.extend(events);
        self
    }

    /// Sends a command.
    #[track_caller]
    #[must_use = "check the outcome, with one of the `then_` methods"]
    pub fn when(&self, command: &str, payload: Value) -> Outcome {
        let action = Action::Decide { command: command.into(), payload: json_of(&payload) };
        passed(self.try_out(action))
    }

    /// Undoes a command that caused `events`, which must be among those given, because a later step of its
    /// saga was rejected with the code `reason`.
    #[track_caller]
    #[must_use = "check the outcome, with one of the `then_` methods"]
    pub fn when_undone(
        &self,
        command: &str,
        events: impl IntoIterator<Item = Event>,
        reason: &str,
    ) -> Outcome {
        let events: Vec<Event> = events.into_iter().collect();
        if let Some(event) = events.iter().find(|event| !self.given.contains(event)) {
            panic!("{} is to be undone, but it was not given", event.name);
        }
        let events = self.recorded(&events);
        passed(self.try_out(Action::Undo { command: command.into(), events, reason: rejection(reason) }))
    }

    fn try_out(&self, action: Action) -> Result<Outcome, String> {
        Trial {
            bench: self.service.bench()?,
            caller: &self.service.caller,
            script: &self.service.script,
            http: &self.service.http,
            stream: &self.stream,
            given: self.recorded(&self.given),
            action,
        }
        .run()
    }

    fn recorded(&self, events: &[Event]) -> Vec<Recorded> {
        let events = events
            .iter()
            .map(|event| NewEvent { name: event.name.as_str().into(), payload: json_of(&event.payload) });
        record(&self.stream, events)
    }
}

/// Returns events as the log records them, each with its own command.
fn record(stream: &StreamId, events: impl IntoIterator<Item = NewEvent>) -> Vec<Recorded> {
    (1..)
        .zip(events)
        .map(|(number, NewEvent { name, payload })| Recorded {
            position: Position::new(number),
            stream: stream.clone(),
            version: Version::new(number),
            index: 0,
            hash: CommitHash::GENESIS,
            name,
            payload,
            meta: Arc::new(Meta {
                command: "given".into(),
                correlation_id: "test".into(),
                time_ms: trial::TIME_MS,
                ..Meta::of(CommandId::from_key(&format!("{stream}/{number}")), &Caller::named(ACTOR))
            }),
        })
        .collect()
}

fn json_of(value: &Value) -> Json {
    Json::of(value).expect("any value can be written as JSON")
}

fn rejection(code: &str) -> Rejection {
    Rejection { code: code.to_owned(), message: "The test says so.".to_owned(), details: None }
}

/// Returns the value of a check, or fails the test at the line of the caller.
#[track_caller]
fn passed<T>(checked: Result<T, String>) -> T {
    match checked {
        Ok(value) => value,
        Err(problem) => panic!("{problem}"),
    }
}
