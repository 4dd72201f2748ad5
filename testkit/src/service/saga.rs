//! Sagas whose steps get the test's answers.

use std::collections::BTreeMap;

use kontor::contract::EventRef;
use kontor::model::{Json, Recorded, Rejection};
use serde_json::Value;

use super::performance::Performance;
use super::story::Story;
use super::{Event, NewEvent, Service, json_of, passed, record, rejection};
use crate::command::stream;

/// A saga of a service, and the test's answers to its steps. A step without an answer succeeds: its command
/// is accepted without a view, and a wait lasts until its time is up.
#[derive(Clone)]
pub struct Saga<'a> {
    service: &'a Service,
    name: String,
    script: BTreeMap<String, Answer>,
}

/// A step to which the test gives an answer.
#[must_use = "say what happens to the step"]
pub struct Step<'a> {
    saga: Saga<'a>,
    name: String,
}

/// The answer to a step.
#[derive(Clone)]
pub(super) enum Answer {
    Accepted { view: Json },
    Rejected(Rejection),
    Failed,
    Happened(Event),
}

impl Service {
    /// Selects the saga with this name.
    pub fn saga(&self, name: &str) -> Saga<'_> {
        Saga { service: self, name: name.to_owned(), script: BTreeMap::new() }
    }
}

impl<'a> Saga<'a> {
    /// Selects the step with this name. `<name>/undo` is its undo, and `trigger/undo` is the undo of the
    /// command that started the saga.
    pub fn when_step(self, name: &str) -> Step<'a> {
        Step { saga: self, name: name.to_owned() }
    }

    /// Runs the saga for this event of an aggregate: from its first line to its end, and again from every
    /// point at which the host may be killed.
    #[track_caller]
    #[must_use = "say the outcome, with one of the `then_` methods"]
    pub fn on(&self, aggregate: &str, id: &str, event: Event) -> Story {
        let event = NewEvent { name: event.name.as_str().into(), payload: json_of(&event.payload) };
        let trigger = record(&stream(aggregate, id), [event]);
        passed(self.perform(trigger))
    }

    fn perform(&self, trigger: Vec<Recorded>) -> Result<Story, String> {
        let bench = self.service.bench()?;
        let manifest = bench.manifest();
        let saga = manifest.sagas.iter().find(|saga| saga.name == *self.name);
        let saga = saga.ok_or_else(|| {
            format!("the manifest of {} does not name the saga {:?}", manifest.service, self.name)
        })?;
        let EventRef { aggregate, event } = &saga.starts_on;
        if !trigger
            .iter()
            .all(|trigger| trigger.stream.aggregate() == aggregate.as_str() && trigger.name == *event)
        {
            return Err(format!(
                "the saga {} starts on the event {event} of an aggregate {aggregate}",
                self.name
            ));
        }
        Performance { bench, ask: &self.service.script, saga: &self.name, script: &self.script }.run(trigger)
    }
}

impl<'a> Step<'a> {
    /// Accepts the step's command; `view` is the aggregate's view afterwards.
    pub fn accepts(self, view: Value) -> Saga<'a> {
        self.gets(Answer::Accepted { view: json_of(&view) })
    }

    /// Rejects the step's command with this code, each time it is sent.
    pub fn rejects(self, code: &str) -> Saga<'a> {
        self.gets(Answer::Rejected(rejection(code)))
    }

    /// Leaves the step's command without an answer, each time it is sent.
    pub fn fails(self) -> Saga<'a> {
        self.gets(Answer::Failed)
    }

    /// Delivers the event that the step waits for.
    pub fn happens(self, event: Event) -> Saga<'a> {
        self.gets(Answer::Happened(event))
    }

    fn gets(self, answer: Answer) -> Saga<'a> {
        let Self { mut saga, name } = self;
        saga.script.insert(name, answer);
        saga
    }
}
