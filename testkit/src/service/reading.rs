//! Given events, when a query, then its answer: on the component itself, with a read database like the
//! host's.

use std::path::Path;
use std::sync::Arc;

use kontor::contract;
use kontor::error::Fault;
use kontor::model::{CommandId, Json, Meta, NewEvent, Position, Recorded, StreamId, Version};
use kontor::projection::{AnswerError, Standalone};
use kontor::runtime::Component;
use serde_json::{Value, json};

use crate::components::{Bench, block_on};

use super::difference::difference;
use super::script::Conversation;
use super::trial::TIME_MS;
use super::{Event, Service, json_of, passed, record, rejection, schema};

/// The events so far, in the order of the log.
#[derive(Clone)]
pub struct History<'a> {
    service: &'a Service,
    /// The time of the next event.
    time_ms: u64,
    events: Vec<Recorded>,
}

/// The answer to a query.
pub struct Reading {
    /// A description of the query, for failure messages.
    question: String,
    answer: Result<Json, AnswerError>,
}

impl Service {
    /// Adds events, each of the aggregate of this kind with this id: `("product", "p1", event(…))`. The
    /// service's read model must follow them.
    #[track_caller]
    pub fn events<'e>(&self, events: impl IntoIterator<Item = (&'e str, &'e str, Event)>) -> History<'_> {
        History { service: self, time_ms: TIME_MS, events: Vec::new() }.events(events)
    }

    /// Queries the service before any event.
    #[track_caller]
    #[must_use = "say what the answer is, with one of the `then` methods"]
    pub fn query(&self, query: &str, arguments: Value) -> Reading {
        self.events([]).query(query, arguments)
    }
}

impl History<'_> {
    /// Sets the time of the next events, in milliseconds since 1970-01-01 UTC. Default: 2023-11-14 at
    /// 22:13:20 UTC.
    pub fn at(self, time_ms: u64) -> Self {
        Self { time_ms, ..self }
    }

    /// Adds further events.
    #[track_caller]
    pub fn events<'e>(mut self, events: impl IntoIterator<Item = (&'e str, &'e str, Event)>) -> Self {
        for (kind, id, event) in events {
            let stream = StreamId::new(kind, id);
            let stream = passed(stream.map_err(|error| format!("{kind}/{id}: {error}")));
            self.record(&stream, event);
        }
        self
    }

    /// Queries the service.
    #[track_caller]
    #[must_use = "say what the answer is, with one of the `then` methods"]
    pub fn query(&self, query: &str, arguments: Value) -> Reading {
        let answer = passed(self.ask(query, &json_of(&arguments)));
        Reading { question: format!("{query} {arguments}"), answer }
    }

    fn record(&mut self, stream: &StreamId, Event { name, payload }: Event) {
        let position = Position::START.after(self.events.len()).next();
        let before = self.events.iter().filter(|event| event.stream == *stream).count();
        let version = Version::START.after(before).next();
        let event = NewEvent { name: name.into(), payload: json_of(&payload) };
        self.events.extend(record(stream, [event]).into_iter().map(|recorded| {
            let command_id = CommandId::from_key(&format!("{stream}/{version}"));
            let meta = Meta { command_id, time_ms: self.time_ms, ..Meta::clone(&recorded.meta) };
            Recorded { position, version, meta: Arc::new(meta), ..recorded }
        }));
    }

    /// Answers a query. The error is a sentence about something that must never happen, whatever the test
    /// expects.
    fn ask(&self, query: &str, arguments: &Json) -> Result<Result<Json, AnswerError>, String> {
        let Bench { reused, fresh, .. } = self.service.bench()?;
        let manifest = reused.manifest();
        let known = manifest.query(query);
        let known =
            known.ok_or_else(|| format!("the manifest of {} has no query {query:?}", manifest.service))?;
        self.check_subscriptions(manifest)?;
        if let Err(message) = schema::check("the object of arguments", &known.arguments, arguments) {
            return Ok(Err(kontor::model::Rejection { message, ..rejection("invalid-arguments") }.into()));
        }

        let together = self.ask_component(reused, self.events.len().max(1), known, arguments)?;
        let alone = self.ask_component(fresh, 1, known, arguments)?;
        let differences = difference(&written(&alone), &written(&together));
        if !differences.is_empty() {
            return Err(format!(
                "{query} {arguments:?}: the events applied all at once lead to \
                 another answer than one by one\n  {}",
                differences.join("\n  ")
            ));
        }
        if let Ok(answer) = &together {
            schema::check(&format!("the answer to {query} {arguments:?}"), &known.answer, answer)?;
        }
        Ok(together)
    }

    fn check_subscriptions(&self, manifest: &contract::Manifest) -> Result<(), String> {
        let followed = manifest.read_model.as_ref().map_or(&[][..], |model| &model.subscribes);
        let missing = self.events.iter().find(|event| {
            let is_it = |followed: &contract::EventRef| {
                followed.aggregate == *event.stream.aggregate() && followed.event == event.name
            };
            !followed.iter().any(is_it)
        });
        match missing {
            None => Ok(()),
            Some(event) => Err(format!(
                "{} of {} was given, but the read model of {} does not follow it",
                event.name, event.stream, manifest.service
            )),
        }
    }

    /// Returns the answer after the events were applied with `at_once` of them in each transaction.
    fn ask_component(
        &self,
        component: &Component,
        at_once: usize,
        query: &contract::Query,
        arguments: &Json,
    ) -> Result<Result<Json, AnswerError>, String> {
        let data = tempfile::tempdir().map_err(|error| format!("no place for a read database: {error}"))?;
        let mut standalone = open(data.path(), component)?;
        let conversation = Arc::new(Conversation::new(&self.service.script));
        block_on(async {
            for events in self.events.chunks(at_once) {
                standalone.project(events).await?;
            }
            let circumstances = (self.service.caller.clone(), TIME_MS);
            let answer =
                standalone.answer(query.name.as_str(), arguments, circumstances, conversation.clone()).await;
            conversation.check()?;
            Ok(answer)
        })
    }
}

impl Reading {
    /// Checks the answer.
    #[track_caller]
    pub fn then(&self, expected: Value) -> &Self {
        let got = self.answer();
        match difference(&expected, &got).as_slice() {
            [] => self,
            lines => panic!(
                "{}: the answer is not as expected\n  {}\nexpected {expected:#}\ngot {got:#}",
                self.question,
                lines.join("\n  ")
            ),
        }
    }

    /// Checks that the query was rejected with this code.
    #[track_caller]
    pub fn then_rejected(&self, code: &str) -> &Self {
        match &self.answer {
            Err(AnswerError::Rejected(rejection)) if rejection.code == code => self,
            _ => panic!("{}: expected the rejection {code}, got {}", self.question, self.summary()),
        }
    }

    /// Checks that the component failed: it trapped, or broke a limit or the contract. Returns the fault.
    #[track_caller]
    pub fn then_fault(&self) -> &Fault {
        match &self.answer {
            Err(AnswerError::Fault(fault)) => fault,
            _ => panic!("{}: expected a fault, got {}", self.question, self.summary()),
        }
    }

    /// Returns the answer, for checks that a literal cannot express.
    #[track_caller]
    pub fn answer(&self) -> Value {
        match &self.answer {
            Ok(answer) => json!(answer),
            Err(_) => panic!("{}: expected an answer, got {}", self.question, self.summary()),
        }
    }

    fn summary(&self) -> String {
        match &self.answer {
            Ok(answer) => format!("the answer {answer:?}"),
            Err(AnswerError::Fault(fault)) => format!("a fault: {fault}\n{}", fault.detail),
            Err(error) => format!("the rejection {error}"),
        }
    }
}

fn open(data: &Path, component: &Component) -> Result<Standalone, String> {
    Standalone::open(data, component.clone()).map_err(|error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

/// Returns an answer as a value to compare.
fn written(answer: &Result<Json, AnswerError>) -> Value {
    match answer {
        Ok(answer) => json!({ "answer": answer }),
        Err(AnswerError::Rejected(rejection)) => json!({ "rejection": rejection }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}
