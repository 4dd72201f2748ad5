//! One saga performed on the host's own runner, with its own log and nothing else around it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontor::aggregate::{Accepted, CommandError, Submit};
use kontor::cluster::Cluster;
use kontor::deployed::{Components, Deployed, DeploymentHistory, Registry, Store};
use kontor::error::{Fault, FaultKind, with_causes};
use kontor::log::{Append, EmbeddedLog, EventLog, Subscription};
use kontor::model::{Caller, Command, NewEvent, Position, Recorded, SagaId, StreamId, Version, event_id};
use kontor::runtime::Component;
use kontor::saga::{Deps, Retries, Retry, Sagas};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::difference::difference;
use super::saga::Answer;
use super::script::{Conversation, Script};
use super::story::Story;
use super::{Event, json_of, record};
use crate::clock::TestClock;
use crate::components::{Bench, block_on};

/// Longer than any saga takes on a busy machine that waits for nothing.
const LIMIT: Duration = Duration::from_secs(20);

/// A failed step is retried once and at once: scripted answers do not change.
const RETRY: Retry = Retry::new(2, Duration::ZERO, Duration::ZERO);

pub(super) struct Performance<'a> {
    pub(super) bench: &'a Bench,
    /// The answers of other services.
    pub(super) ask: &'a Script,
    /// The saga's name.
    pub(super) saga: &'a str,
    /// The answers, by step name.
    pub(super) script: &'a BTreeMap<String, Answer>,
}

impl Performance<'_> {
    /// Runs the saga to its end, and then again from each commit that it left in the log: each run must be
    /// the same. The error is a sentence about something that must never happen, whatever the test expects.
    pub(super) fn run(&self, trigger: Vec<Recorded>) -> Result<Story, String> {
        let id = self.id(&trigger[0]);
        let first = block_on(self.perform(&id, &trigger))?;
        let story = Story::new(self.saga, first.iter().filter(|event| id == event.stream.id()));
        if let Some(name) = self.script.keys().find(|name| !story.comes_to(name)) {
            return Err(format!("the saga never comes to {name}, of which the test says something\n{story}"));
        }
        let mut done = 0;
        for commit in commits(&first) {
            done += commit.len();
            let again = block_on(self.perform(&id, &first[..done]))?;
            let differences = difference(&comparable(&first), &comparable(&again));
            if !differences.is_empty() {
                let (last, lines) = (&first[done - 1].name, differences.join("\n  "));
                return Err(format!(
                    "started again after {last}, the saga goes another way\n  {lines}\n{story}"
                ));
            }
        }
        Ok(story)
    }

    fn id(&self, trigger: &Recorded) -> SagaId {
        let event = event_id(&trigger.meta.command_id, trigger.index);
        SagaId::started_by(
            &event,
            &self.bench.fresh.manifest().service,
            &self.saga.into(),
            trigger.meta.time_ms,
        )
    }

    /// Runs the saga on a log with this history, until it has ended or parked. Returns all events of the log.
    async fn perform(&self, id: &SagaId, history: &[Recorded]) -> Result<Vec<Recorded>, String> {
        let component = self.bench.fresh.clone();
        let stage = Stage::new(&component, history).await.map_err(|error| with_causes(&*error))?;
        let deployed = Deployed::new([component]).map_err(|conflict| conflict.to_string())?;
        let registry = Registry::of(deployed, DeploymentHistory::default());
        let store = Store::open(stage.data.path()).map_err(|error| with_causes(&error))?;
        let conversation = Arc::new(Conversation::new(self.ask));
        let deps = Deps {
            log: stage.log.clone(),
            commands: Arc::new(Scripted { saga: id.clone(), script: self.script.clone() }),
            ask: conversation.clone(),
            components: Arc::new(Components::new(registry.into(), self.bench.runtime.clone(), store)),
            clock: stage.clock.clone(),
            retries: Retries { before_pivot: RETRY, after_pivot: RETRY, undo: RETRY, steps: BTreeMap::new() },
            nobody: Caller::unauthenticated_operator(),
            cluster: Cluster::alone("tested".into()),
        };
        let sagas = Sagas::start(stage.data.path(), deps).await.map_err(|error| with_causes(&error))?;
        let events = timeout(LIMIT, stage.follow(id, self.script)).await;
        sagas.close().await;
        conversation.check()?;
        events.unwrap_or_else(|_| Err(format!("the saga has not ended after {LIMIT:?}")))
    }
}

/// The surroundings of one run.
struct Stage {
    log: Arc<dyn EventLog>,
    /// The position of the service's deployment.
    deployed: Position,
    clock: Arc<TestClock>,
    data: TempDir,
}

impl Stage {
    async fn new(component: &Component, history: &[Recorded]) -> Result<Self, Box<dyn std::error::Error>> {
        let data = tempfile::tempdir()?;
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path())?);
        DeploymentHistory::default().record(&*log, std::slice::from_ref(component)).await?;
        let deployed = *log.head().borrow();
        for commit in commits(history) {
            log.append(vec![append(commit)]).await?;
        }
        let now_ms = history.last().map_or(0, |event| event.meta.time_ms);
        Ok(Self { log, deployed, clock: Arc::new(TestClock::new(now_ms)), data })
    }

    /// Gives a waiting saga its scripted event, until the saga has ended or parked.
    async fn follow(&self, id: &SagaId, script: &BTreeMap<String, Answer>) -> Result<Vec<Recorded>, String> {
        let mut events: Vec<Recorded> = Vec::new();
        let mut subscription = Subscription::new(self.log.clone(), self.deployed);
        loop {
            let page = subscription.next().await.map_err(|error| with_causes(&error))?;
            events.extend(page.unwrap_or_default());
            let Some(last) = events.last().filter(|event| *id == event.stream.id()) else { continue };
            match last.name.as_str() {
                "waiting" => self.wake(last, script).await?,
                "completed" | "compensated" | "parked" => return Ok(events),
                _ => {}
            }
        }
    }

    async fn wake(&self, waiting: &Recorded, script: &BTreeMap<String, Answer>) -> Result<(), String> {
        let waiting: Value = waiting.payload.read().map_err(|error| with_causes(&error))?;
        let name = waiting["name"].as_str().unwrap_or_default();
        let Some(Answer::Happened(event)) = script.get(name) else {
            self.clock.advance_to(waiting["until_ms"].as_u64().unwrap_or_default());
            return Ok(());
        };
        let Event { name: happened, payload } = event;
        let awaited = &waiting["wait"]["event"];
        let names = awaited["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !names.contains(&json!(happened)) {
            return Err(format!("{name} does not wait for {happened}, but for {}", waiting["wait"]));
        }
        let stream = StreamId::parse(awaited["stream"].as_str().unwrap_or_default());
        let stream = stream.map_err(|error| with_causes(&error))?;
        let before =
            self.log.read(&stream, Version::START, usize::MAX).await.map_err(|error| with_causes(&error))?;
        let event = NewEvent { name: happened.as_str().into(), payload: json_of(payload) };
        let mut recorded = record(&stream, before.iter().map(as_new).chain([event]));
        let appending = self.log.append(vec![append(&recorded.split_off(before.len()))]);
        appending.await.map(|_| ()).map_err(|error| with_causes(&error))
    }
}

fn as_new(event: &Recorded) -> NewEvent {
    NewEvent { name: event.name.clone(), payload: event.payload.clone() }
}

/// Returns the events of each commit.
fn commits(events: &[Recorded]) -> impl Iterator<Item = &[Recorded]> {
    events.chunk_by(|one, next| one.meta.command_id == next.meta.command_id)
}

fn append(commit: &[Recorded]) -> Append {
    let first = &commit[0];
    let (events, meta) = (commit.iter().map(as_new).collect(), first.meta.clone());
    Append { events, meta, ..Append::nothing(first.stream.clone(), first.version.before(1)) }
}

/// Returns the part of the events that must be the same in every run. Durations differ, and a host that is
/// killed after a failure may retry once more.
fn comparable(events: &[Recorded]) -> Value {
    let mut compared: Vec<Value> = Vec::new();
    for event in events {
        let mut payload = json!(event.payload);
        if let Some(fields) = payload.as_object_mut() {
            fields.remove("effort");
        }
        let entry = json!({ format!("{} {}", event.stream, event.name): payload });
        if !(event.name.as_str().ends_with("-failed") && compared.contains(&entry)) {
            compared.push(entry);
        }
    }
    compared.into()
}

/// A command handler that answers from the script.
struct Scripted {
    saga: SagaId,
    script: BTreeMap<String, Answer>,
}

#[async_trait]
impl Submit for Scripted {
    async fn submit(&self, command: Command) -> Result<Accepted, CommandError> {
        let step =
            command.id.as_str().strip_prefix(self.saga.as_str()).and_then(|step| step.strip_prefix('/'));
        let view = match self.script.get(step.unwrap_or_default()) {
            Some(Answer::Accepted { view }) => Some(view.clone()),
            Some(Answer::Rejected(rejection)) => return Err(rejection.clone().into()),
            Some(Answer::Failed) => {
                let (call, detail) = (format!("{} of {}", command.name, command.stream), String::new());
                return Err(Fault { service: "test".into(), call, kind: FaultKind::Trap, detail }.into());
            }
            Some(Answer::Happened(_)) | None => None,
        };
        Ok(Accepted {
            stream: command.stream,
            version: Version::new(1),
            position: Position::new(1),
            events: Vec::new(),
            view,
            saga: None,
        })
    }
}
