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

use kontor::model::{CommandId, Json, Meta, NewEvent, Position, Recorded, Rejection, StreamId, Version};
use serde_json::Value;

use crate::command::stream;
use crate::components::{self, Bench};

use http::HttpScript;
use script::Script;
use trial::{Action, Trial};

pub use http::Sent;
pub use outcome::Outcome;
pub use reading::{History, Reading};
pub use saga::{Saga, Step};
pub use story::Story;

/// A service's component, and what a test says about the world around it. Tests are plain functions: an async one cannot
/// wait in here.
pub struct Service {
    name: String,
    wasm: Vec<u8>,
    config: BTreeMap<String, Json>,
    script: Script,
    http: HttpScript,
    /// Made by the first `when`, when the configuration is known; a sentence if that failed.
    bench: OnceLock<Result<Bench, String>>,
}

/// An event of a test: [`event`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    name: String,
    payload: Value,
}

/// An event that happened, or that should.
pub fn event(name: &str, payload: Value) -> Event {
    Event { name: name.to_owned(), payload }
}

/// One aggregate and what has happened to it.
#[derive(Clone)]
pub struct Aggregate<'a> {
    service: &'a Service,
    stream: StreamId,
    given: Vec<Event>,
}

impl Service {
    /// The component of a service in this workspace: `target/plugins/<name>.wasm`. The environment variable
    /// `KONTOR_COMPONENTS` names another folder. If it is not there, what `cargo build --release --target wasm32-wasip2` has
    /// made of the package.
    #[track_caller]
    pub fn load(name: &str) -> Self {
        Self::new(name, components::built(name))
    }

    /// A component anywhere else.
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
        Self { name, wasm, config: BTreeMap::new(), script, http, bench: OnceLock::new() }
    }

    /// A value that the operator has configured for the service.
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), json_of(&value));
        Self { bench: OnceLock::new(), ..self }
    }

    /// What `service` answers to its query `query` with these arguments. A question for which the test has no answer
    /// fails the test.
    pub fn answers(mut self, service: &str, query: &str, arguments: Value, answer: Value) -> Self {
        self.script.add(service, query, arguments, Ok(json_of(&answer)));
        self
    }

    /// That `service` rejects its query `query` with these arguments, and with which code.
    pub fn refuses(mut self, service: &str, query: &str, arguments: Value, code: &str) -> Self {
        self.script.add(service, query, arguments, Err(rejection(code)));
        self
    }

    /// That `service` answers nothing at all: it is not deployed, failed, or took too long.
    pub fn is_silent(mut self, service: &str) -> Self {
        self.script.silence(service);
        self
    }

    /// What the world outside answers to a request, as JSON. A request for which the test has no answer fails the test; what
    /// was sent stands in [`Outcome::sent`].
    pub fn answers_http(mut self, method: &str, url: &str, status: u16, body: Value) -> Self {
        self.http.add(method, url, Some((status, body)));
        self
    }

    /// That the world outside answers a request with nothing at all.
    pub fn is_silent_http(mut self, method: &str, url: &str) -> Self {
        self.http.add(method, url, None);
        self
    }

    /// The aggregate of this kind with this id. It does not exist until events are given.
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
    /// That these events happened, after those given before.
    pub fn given(mut self, events: impl IntoIterator<Item = Event>) -> Self {
        self.given.extend(events);
        self
    }

    /// Sends a command.
    #[track_caller]
    #[must_use = "say what it leads to, with one of the `then_` methods"]
    pub fn when(&self, command: &str, payload: Value) -> Outcome {
        let action = Action::Decide { command: command.into(), payload: json_of(&payload) };
        passed(self.try_out(action))
    }

    /// Undoes a command that caused `events`, which must be among those given, because a later step of its saga was
    /// refused with the code `reason`.
    #[track_caller]
    #[must_use = "say what it leads to, with one of the `then_` methods"]
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

/// Events as the log would have them, one command each.
fn record(stream: &StreamId, events: impl IntoIterator<Item = NewEvent>) -> Vec<Recorded> {
    (1..)
        .zip(events)
        .map(|(number, NewEvent { name, payload })| Recorded {
            position: Position::new(number),
            stream: stream.clone(),
            version: Version::new(number),
            index: 0,
            name,
            payload,
            meta: Arc::new(Meta {
                command_id: CommandId::from_key(&format!("{stream}/{number}")),
                command: "given".into(),
                fingerprint: 0,
                correlation_id: "test".into(),
                causation_id: None,
                digest: None,
                time_ms: trial::TIME_MS,
                actor: trial::ACTOR.into(),
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

/// What a check gives, or the end of the test at the line that called it.
#[track_caller]
fn passed<T>(checked: Result<T, String>) -> T {
    match checked {
        Ok(value) => value,
        Err(problem) => panic!("{problem}"),
    }
}
