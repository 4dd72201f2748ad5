//! One command, tried in every way that must lead to the same outcome.

use std::sync::Arc;

use kontor::contract;
use kontor::error::Fault;
use kontor::model::{Caller, CommandName, Json, Recorded, Rejection, StreamId};
use kontor::runtime::{Component, Context, Decision, Folded, Target};
use serde_json::{Value, json};

use crate::components::{Bench, block_on};

use super::difference::difference;
use super::http::{Exchanges, HttpScript, Sent};
use super::outcome::Outcome;
use super::record;
use super::schema;
use super::script::{Conversation, Script};

/// The time of every command, 2023-11-14 22:13:20 UTC.
pub(super) const TIME_MS: u64 = 1_700_000_000_000;
pub(super) const ACTOR: &str = "tester";

/// A component's answer to a command.
pub(super) type Answer = Result<Result<Decision, Rejection>, Fault>;

/// A component's answer, and the HTTP requests it sent.
pub(super) struct Tried {
    pub(super) answer: Answer,
    pub(super) sent: Vec<Sent>,
}

/// A call to the aggregate.
pub(super) enum Action {
    Decide { command: CommandName, payload: Json },
    Undo { command: CommandName, events: Vec<Recorded>, reason: Rejection },
}

pub(super) struct Trial<'a> {
    pub(super) bench: &'a Bench,
    pub(super) caller: &'a Caller,
    pub(super) script: &'a Script,
    pub(super) http: &'a HttpScript,
    pub(super) stream: &'a StreamId,
    pub(super) given: Vec<Recorded>,
    pub(super) action: Action,
}

impl Trial<'_> {
    /// Runs the command. The error is a sentence about something that must never happen, whatever the test
    /// expects.
    pub(super) fn run(&self) -> Result<Outcome, String> {
        let manifest = self.bench.manifest();
        let kind = self.stream.aggregate();
        let aggregate = manifest
            .aggregate(kind)
            .ok_or_else(|| format!("the service {} has no aggregate {kind:?}", manifest.service))?;
        let tried = match self.refusal_of_the_host(aggregate)? {
            Some(rejection) => Tried { answer: Ok(Err(rejection)), sent: Vec::new() },
            None => block_on(self.run_component(aggregate))?,
        };
        Ok(Outcome::new(self.to_string(), tried))
    }

    /// Returns the rejection that the host gives before it calls the component, if any.
    fn refusal_of_the_host(&self, aggregate: &contract::Aggregate) -> Result<Option<Rejection>, String> {
        let (Action::Decide { command: name, .. } | Action::Undo { command: name, .. }) = &self.action;
        let command = aggregate
            .command(name.as_str())
            .ok_or_else(|| format!("the manifest has no command {name:?} of {}", aggregate.name))?;
        match &self.action {
            Action::Undo { .. } if !command.compensable => Err(format!(
                "the manifest does not say that {name} can be compensated, so the host would never ask for it"
            )),
            Action::Undo { .. } => Ok(None),
            Action::Decide { payload, .. } => {
                let invalid = schema::check("the payload", &command.payload, payload).err();
                Ok(invalid.map(|message| Rejection {
                    code: "invalid-payload".to_owned(),
                    message,
                    details: None,
                }))
            }
        }
    }

    async fn run_component(&self, aggregate: &contract::Aggregate) -> Result<Tried, String> {
        let Bench { reused, fresh, .. } = self.bench;
        let events = self.target(&self.given);
        let conversation = Arc::new(Conversation::new(self.script));
        let first = self.act(reused, events, &conversation).await?;
        conversation.check()?;
        if first.answer.is_err() {
            return Ok(first);
        }

        let again = self.act(reused, events, &conversation).await?;
        self.same("the same command led to something else when it was decided again", &first, &again)?;
        let alone = self.act(fresh, events, &conversation).await?;
        self.same(
            "the same command led to something else on a fresh instance: state is hidden between calls",
            &alone,
            &again,
        )?;
        let stored = fresh.evolve(events).await.map_err(|fault| faulty("evolve", &fault))?;
        let state = stored.as_ref().map(|folded| &folded.state);
        let from_state = self.act(fresh, Target { state, ..self.target(&[]) }, &conversation).await?;
        self.same(
            "the command led to something else on the stored state than on its events: \
             the state does not hold everything",
            &first,
            &from_state,
        )?;
        if let Ok(Ok(decision)) = &first.answer {
            self.check_fold(decision).await?;
            check_schemas(aggregate, decision)?;
        }
        Ok(first)
    }

    /// Returns the aggregate with these events and no state.
    fn target<'t>(&'t self, since: &'t [Recorded]) -> Target<'t> {
        Target { stream: self.stream, state: None, since }
    }

    async fn act(
        &self,
        component: &Component,
        target: Target<'_>,
        ask: &Arc<Conversation>,
    ) -> Result<Tried, String> {
        let http = Arc::new(Exchanges::new(self.http));
        let context = Context {
            command_id: "test-command".into(),
            correlation_id: "test".into(),
            time_ms: TIME_MS,
            caller: self.caller.clone(),
            ask: ask.clone(),
            http: http.clone(),
        };
        let answer = match &self.action {
            Action::Decide { command, payload } => component.decide(target, command, payload, &context).await,
            Action::Undo { command, events, reason } => {
                component.compensate(target, command, events, reason, &context).await
            }
        };
        http.check()?;
        Ok(Tried { answer, sent: http.sent() })
    }

    fn same(&self, otherwise: &str, expected: &Tried, got: &Tried) -> Result<(), String> {
        let differences = difference(&written(expected), &written(got));
        self.no(otherwise, &differences)
    }

    /// Checks that folding all events from the beginning gives the decision's state and view.
    async fn check_fold(&self, decision: &Decision) -> Result<(), String> {
        let given = self.given.iter().map(|event| kontor::model::NewEvent {
            name: event.name.clone(),
            payload: event.payload.clone(),
        });
        let all = record(self.stream, given.chain(decision.events.iter().cloned()));
        let folded = self.bench.fresh.evolve(self.target(&all)).await;
        let folded = folded.map_err(|fault| faulty("evolve with the new events", &fault))?;
        let differences = difference(&written_fold(folded.as_ref()), &written_fold(decision.after.as_ref()));
        self.no("the decision came with another state or view than its events make", &differences)?;
        self.check_extension(all).await
    }

    /// Checks that the events can be folded with one more member, as a later version may write them. If not,
    /// there is no way back from that version.
    async fn check_extension(&self, mut events: Vec<Recorded>) -> Result<(), String> {
        for event in &mut events {
            let mut payload: Value = event.payload.read().map_err(|error| error.to_string())?;
            if let Value::Object(members) = &mut payload {
                members.insert("later".to_owned(), Value::Null);
            }
            event.payload = Json::of(&payload).map_err(|error| error.to_string())?;
        }
        let extended = self.bench.fresh.evolve(self.target(&events)).await;
        extended.map(drop).map_err(|fault| {
            faulty(
                "evolve with one more member in each event: no later version could extend its events",
                &fault,
            )
        })
    }

    fn no(&self, problem: &str, differences: &[String]) -> Result<(), String> {
        match differences {
            [] => Ok(()),
            lines => Err(format!("{self}: {problem}\n  {}", lines.join("\n  "))),
        }
    }
}

impl std::fmt::Display for Trial<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.action {
            Action::Decide { command, payload } => write!(f, "{command} {payload:?} on {}", self.stream),
            Action::Undo { command, .. } => write!(f, "undoing {command} on {}", self.stream),
        }
    }
}

fn check_schemas(aggregate: &contract::Aggregate, decision: &Decision) -> Result<(), String> {
    for event in &decision.events {
        let known = aggregate.events.iter().find(|known| known.name == event.name);
        if let Some(known) = known {
            schema::check(&format!("the event {}", event.name), &known.payload, &event.payload)?;
        }
    }
    match &decision.after {
        Some(after) => schema::check("the view", &aggregate.view, &after.view),
        None => Ok(()),
    }
}

fn faulty(what: &str, fault: &Fault) -> String {
    format!("{what}: {fault}\n{}", fault.detail)
}

/// Returns the outcome of a command as a value to compare.
fn written(tried: &Tried) -> Value {
    let mut written = written_answer(&tried.answer);
    if !tried.sent.is_empty() {
        written["sent"] = tried.sent.iter().map(Sent::written).collect();
    }
    written
}

fn written_answer(answer: &Answer) -> Value {
    match answer {
        Ok(Ok(Decision { events, after })) => {
            let events: Vec<_> =
                events.iter().map(|event| json!({ event.name.as_str(): event.payload })).collect();
            json!({ "events": events, "after": written_fold(after.as_ref()) })
        }
        Ok(Err(rejection)) => json!({ "rejection": rejection }),
        Err(fault) => json!({ "fault": fault.to_string() }),
    }
}

fn written_fold(folded: Option<&Folded>) -> Value {
    let written = |state: &[u8]| serde_json::from_slice(state).unwrap_or_else(|_| json!(state));
    folded.map_or(Value::Null, |Folded { state, view }| json!({ "state": written(state), "view": view }))
}
