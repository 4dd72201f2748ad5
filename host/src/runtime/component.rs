//! A component as the rest of the host calls it: the contract's exports, in the host's own types.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use wasmtime::Store;

use super::bindings::{self, InvalidRejection, NotJson, Service, types};
use super::call::{Call, Denied, Scope};
use super::host::{Ask, HttpCall, Outgoing, ReadSession, Steps};
use super::instance::{CallFailure, Instances};
use super::instance_data::{Identity, InstanceData};
use super::places::Lane;
use super::tally::{CallName, Tallies, Tally};
use crate::contract::{HttpOrigin, Manifest, Schemas};
use crate::error::{Chain, Fault, FaultKind};
use crate::model::{
    Caller, CommandName, CorrelationId, Digest, Json, NewEvent, QueryName, Recorded, Rejection, SagaId,
    SagaName, StreamId,
};

/// Maximum number of events of one decision. A command that causes more should be several commands.
const MAX_EVENTS: usize = 1_000;
/// Maximum size of an event's payload: the default limit of a command's payload.
const MAX_EVENT_BYTES: usize = 1 << 20;
/// Maximum size of the payloads of one command's events.
const MAX_EVENTS_BYTES: usize = 8 << 20;
/// Maximum size of a state, and of a view. With larger ones a command costs more than a tenth of a second.
const MAX_STATE_BYTES: usize = 8 << 20;

/// One version of one service, ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct Component {
    loaded: Arc<Loaded>,
}

struct Loaded {
    identity: Arc<Identity>,
    instances: Instances,
}

/// An aggregate: a state and the events since.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The aggregate's stream.
    pub stream: &'a StreamId,
    /// The state. None: all events are in `since`.
    pub state: Option<&'a Bytes>,
    /// The events after the state, oldest first.
    pub since: &'a [Recorded],
}

/// The circumstances of a command.
#[derive(Clone)]
pub struct Context {
    /// The command's id.
    pub command_id: Arc<str>,
    /// Shared by all commands that follow from one request.
    pub correlation_id: CorrelationId,
    /// The time of the decision, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// The sender of the command.
    pub caller: Caller,
    /// Answers queries of other services.
    pub ask: Arc<dyn Ask>,
    /// Sends HTTP requests.
    pub http: Arc<dyn Outgoing>,
}

/// The state of an aggregate, and the view that clients get of it.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The component's own bytes.
    pub state: Bytes,
    /// The view for clients.
    pub view: Json,
}

/// The result of an accepted command.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The new events, oldest first.
    pub events: Vec<NewEvent>,
    /// The state and the view after them. None if the aggregate still does not exist.
    pub after: Option<Folded>,
}

/// The end of a saga's run.
#[derive(Debug)]
pub enum SagaEnd {
    /// The code ended, with or without a rejection.
    Returned(Result<(), Rejection>),
    /// The driver of the steps ended the run.
    Halted,
    /// The component failed.
    Fault(Fault),
}

impl Component {
    pub(super) fn new(identity: Arc<Identity>, instances: Instances) -> Self {
        Self { loaded: Arc::new(Loaded { identity, instances }) }
    }

    /// Returns the component's description of itself.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.loaded.identity.manifest
    }

    /// Returns the digest of the component's bytes.
    pub fn digest(&self) -> Digest {
        self.loaded.identity.digest
    }

    /// Returns the numbers of all its calls.
    pub(crate) fn total_calls(&self) -> Tallies {
        self.loaded.instances.counters.total()
    }

    /// Returns the numbers of its calls in the last minutes.
    pub(crate) fn recent_calls(&self) -> Tallies {
        self.loaded.instances.counters.recent()
    }

    /// Returns the HTTP origins that it asks for, under its configuration.
    pub fn origins(&self) -> &[HttpOrigin] {
        &self.loaded.identity.http.origins
    }

    /// Returns the schemas of its commands and queries.
    pub(crate) fn schemas(&self) -> &Schemas {
        &self.loaded.identity.schemas
    }

    /// Decides a command on an aggregate.
    pub async fn decide(
        &self,
        target: Target<'_>,
        command: &CommandName,
        payload: &Json,
        context: &Context,
    ) -> Result<Result<Decision, Rejection>, Fault> {
        let aggregate = target.stream.aggregate();
        let target = guest_target(target);
        let input = bindings::aggregates::Command {
            name: command.as_str().to_owned(),
            payload: payload.as_str().to_owned(),
            context: guest_context(context),
        };
        let (ask, http) = (context.ask.clone(), context.http_call());
        let scope = context.scope(command.shared(), Call::Decide { ask, http });
        let call = self.call(Lane::Request, scope, move |service, store| {
            async move { service.kontor_service_aggregates().call_decide(store, &target, &input).await }
                .boxed()
        });
        let (result, _) = call.await;
        self.decision("decide", command, aggregate, result)
    }

    /// Decides how to undo a command whose `events` are given.
    pub async fn compensate(
        &self,
        target: Target<'_>,
        command: &CommandName,
        events: &[Recorded],
        reason: &Rejection,
        context: &Context,
    ) -> Result<Result<Decision, Rejection>, Fault> {
        let aggregate = target.stream.aggregate();
        let target = guest_target(target);
        let input = bindings::Compensation {
            command: command.as_str().to_owned(),
            events: events.iter().map(types::Event::from).collect(),
            reason: types::Rejection::from(reason),
            context: guest_context(context),
        };
        let (ask, http) = (context.ask.clone(), context.http_call());
        let scope = context.scope(command.shared(), Call::Compensate { ask, http });
        let call = self.call(Lane::Request, scope, move |service, store| {
            async move { service.kontor_service_aggregates().call_compensate(store, &target, &input).await }
                .boxed()
        });
        let (result, _) = call.await;
        self.decision("compensate", command, aggregate, result)
    }

    /// Folds events into a state. Returns `None` if the aggregate does not exist.
    pub async fn evolve(&self, target: Target<'_>) -> Result<Option<Folded>, Fault> {
        let subject: Arc<str> = target.stream.aggregate().into();
        let scope = Scope {
            call: Call::Evolve,
            subject: subject.clone(),
            id: target.stream.as_str().into(),
            ..Scope::default()
        };
        let target = guest_target(target);
        let call = self.call(Lane::Background, scope, move |service, store| {
            async move { service.kontor_service_aggregates().call_evolve(store, &target).await }.boxed()
        });
        let (result, _) = call.await;
        let folded = result.map_err(|failure| self.as_fault("evolve", &subject, failure))?;
        folded.map(host_folded).transpose().map_err(|breach| self.broken("evolve", &subject, &breach))
    }

    /// Answers a query.
    pub(crate) async fn answer(&self, query: &QueryName, arguments: &Json, call: QueryCall) -> Answered {
        let scope = Scope {
            call: Call::Answer { ask: call.ask, read_model: call.read_model },
            subject: query.shared(),
            id: call.id,
            time_ms: call.time_ms,
            caller: call.caller,
            depth: call.depth,
            ..Scope::default()
        };
        let (name, arguments) = (query.as_str().to_owned(), arguments.as_str().to_owned());
        let call = self.call(Lane::Request, scope, move |service, store| {
            async move { service.kontor_service_queries().call_answer(store, &name, &arguments).await }
                .boxed()
        });
        let (result, scope) = call.await;
        let answer =
            result.map_err(|failure| self.as_fault("answer", &query.shared(), failure)).and_then(|answer| {
                match answer {
                    Ok(text) => bindings::json("the answer", text).map(Ok).map_err(Breach::from),
                    Err(rejection) => rejection.into_host().map(Err).map_err(Breach::from),
                }
                .map_err(|breach| self.broken("answer", &query.shared(), &breach))
            });
        let private = scope.used_moment || scope.used_caller;
        Answered { answer, private, read_model: scope.call.into_read_model() }
    }

    /// Applies events to the read model inside the session's transaction. The inner error is the component's
    /// own.
    pub(crate) async fn project(
        &self,
        events: &[Recorded],
        session: ReadSession,
    ) -> (Result<Result<(), String>, Fault>, Option<ReadSession>) {
        let subject: Arc<str> = events.first().map_or_else(|| "nothing".into(), |event| event.name.shared());
        if let Err(denied) = self.loaded.identity.may_see_all(events) {
            return (Err(self.broken("project", &subject, &denied.into())), Some(session));
        }
        let scope = Scope {
            call: Call::Project { read_model: session },
            subject: subject.clone(),
            id: events.first().map(Recorded::id).unwrap_or_default().into(),
            time_ms: events.first().map_or(0, |event| event.meta.time_ms),
            ..Scope::default()
        };
        let events: Vec<_> = events.iter().map(types::RecordedEvent::from).collect();
        let call = self.call(Lane::Background, scope, move |service, store| {
            async move { service.kontor_service_projections().call_project(store, &events).await }.boxed()
        });
        let (result, scope) = call.await;
        let result = result.map_err(|failure| self.as_fault("project", &subject, failure));
        if let Ok(Err(_)) = result {
            self.count_fault("project", &subject);
        }
        (result, scope.call.into_read_model())
    }

    /// Runs a saga from its first line. `steps` answers the steps of the journal, and takes the others.
    pub async fn run_saga(
        &self,
        saga: &SagaName,
        id: &SagaId,
        trigger: &Recorded,
        steps: Box<dyn Steps>,
    ) -> SagaEnd {
        if let Err(denied) = self.loaded.identity.may_see_all(std::slice::from_ref(trigger)) {
            return SagaEnd::Fault(self.broken("run", &saga.shared(), &denied.into()));
        }
        let scope = Scope {
            call: Call::Saga { steps },
            subject: saga.shared(),
            id: id.shared(),
            time_ms: trigger.meta.time_ms,
            ..Scope::default()
        };
        let (name, trigger) = (saga.as_str().to_owned(), types::RecordedEvent::from(trigger));
        let call = self.call(Lane::Saga, scope, move |service, store| {
            async move { service.kontor_service_sagas().call_run(store, &name, &trigger).await }.boxed()
        });
        let (result, _) = call.await;
        match result {
            Ok(Ok(())) => SagaEnd::Returned(Ok(())),
            Ok(Err(rejection)) => match rejection.into_host() {
                Ok(rejection) => SagaEnd::Returned(Err(rejection)),
                Err(error) => SagaEnd::Fault(self.broken("run", &saga.shared(), &error.into())),
            },
            Err(CallFailure::Halted) => SagaEnd::Halted,
            Err(CallFailure::Fault(fault)) => SagaEnd::Fault(fault),
        }
    }

    async fn call<R, F>(&self, lane: Lane, scope: Scope, call: F) -> (Result<R, CallFailure>, Scope)
    where
        R: Send,
        F: for<'a> FnOnce(&'a Service, &'a mut Store<InstanceData>) -> BoxFuture<'a, wasmtime::Result<R>>
            + Send,
    {
        self.loaded.instances.call(lane, scope, call).await
    }

    fn decision(
        &self,
        operation: &'static str,
        command: &CommandName,
        aggregate: &str,
        result: Result<Result<bindings::Decision, types::Rejection>, CallFailure>,
    ) -> Result<Result<Decision, Rejection>, Fault> {
        let broken = |breach: Breach| self.broken(operation, &command.shared(), &breach);
        match result.map_err(|failure| self.as_fault(operation, &command.shared(), failure))? {
            Err(rejection) => rejection.into_host().map(Err).map_err(|error| broken(error.into())),
            Ok(decision) => self.host_decision(aggregate, decision).map(Ok).map_err(broken),
        }
    }

    /// Checks a decision: only events that the manifest names may go to the log.
    fn host_decision(&self, aggregate: &str, decision: bindings::Decision) -> Result<Decision, Breach> {
        if decision.events.len() > MAX_EVENTS {
            return Err(Breach::TooManyEvents(decision.events.len()));
        }
        let known = self.manifest().aggregate(aggregate).map(|aggregate| aggregate.events.as_slice());
        let known = known.unwrap_or_default();
        let event = |event: types::Event| {
            // The manifest's own name is shared, so an event costs no new string.
            let name = known.iter().find(|known| known.name == *event.name).map(|known| known.name.clone());
            let name = name.ok_or_else(|| Breach::UnknownEvent(event.name.clone()))?;
            if event.payload.len() > MAX_EVENT_BYTES {
                return Err(Breach::EventTooLarge(name.shared()));
            }
            let payload = bindings::json("an event's payload", event.payload)?;
            Ok(NewEvent { name, payload })
        };
        if decision.events.iter().map(|event| event.payload.len()).sum::<usize>() > MAX_EVENTS_BYTES {
            return Err(Breach::EventsTooLarge);
        }
        let events = decision.events.into_iter().map(event).collect::<Result<Vec<_>, Breach>>()?;
        let after = decision.after.map(host_folded).transpose()?;
        if !events.is_empty() && after.is_none() {
            return Err(Breach::NoState);
        }
        Ok(Decision { events, after })
    }

    /// Returns the fault for an answer that breaks the contract.
    fn broken(&self, operation: &'static str, subject: &Arc<str>, breach: &Breach) -> Fault {
        self.count_fault(operation, subject);
        let detail = Chain(breach).to_string();
        self.loaded.instances.fault((operation, subject.clone()), FaultKind::Contract, detail)
    }

    /// Counts a fault of a call that did not fail itself.
    fn count_fault(&self, operation: &'static str, subject: &Arc<str>) {
        self.loaded.instances.counters.count(CallName::new(operation, subject), Tally::FAULT);
    }

    fn as_fault(&self, operation: &'static str, subject: &Arc<str>, failure: CallFailure) -> Fault {
        match failure {
            CallFailure::Fault(fault) => fault,
            CallFailure::Halted => self.broken(operation, subject, &Breach::Halted),
        }
    }
}

/// The circumstances of a query's call.
pub(crate) struct QueryCall {
    pub(crate) id: Arc<str>,
    pub(crate) time_ms: u64,
    pub(crate) caller: Caller,
    pub(crate) depth: usize,
    pub(crate) ask: Arc<dyn Ask>,
    pub(crate) read_model: Option<ReadSession>,
}

/// The end of a query's call.
pub(crate) struct Answered {
    pub(crate) answer: Result<Result<Json, Rejection>, Fault>,
    /// The read model that was lent to the call.
    pub(crate) read_model: Option<ReadSession>,
    /// True if the component asked for the time, for random numbers or for its caller, so that its answer to
    /// the next caller may differ.
    pub(crate) private: bool,
}

impl Context {
    fn http_call(&self) -> HttpCall {
        HttpCall { outgoing: self.http.clone(), correlation_id: self.correlation_id.clone() }
    }

    fn scope(&self, command: Arc<str>, call: Call) -> Scope {
        Scope {
            call,
            subject: command,
            id: self.command_id.clone(),
            time_ms: self.time_ms,
            caller: self.caller.clone(),
            ..Scope::default()
        }
    }
}

fn guest_target(target: Target<'_>) -> bindings::Target {
    bindings::Target {
        aggregate: target.stream.aggregate().to_owned(),
        id: target.stream.id().to_owned(),
        state: target.state.map(|state| state.to_vec()),
        since: target.since.iter().map(types::Event::from).collect(),
    }
}

fn guest_context(context: &Context) -> types::Context {
    types::Context {
        command_id: context.command_id.as_ref().to_owned(),
        correlation_id: context.correlation_id.as_str().to_owned(),
        time_ms: context.time_ms,
        caller: types::Caller::from(&context.caller),
    }
}

fn host_folded(folded: bindings::Folded) -> Result<Folded, Breach> {
    if folded.state.len().max(folded.view.len()) > MAX_STATE_BYTES {
        return Err(Breach::StateTooLarge);
    }
    Ok(Folded { state: folded.state.into(), view: bindings::json("the view", folded.view)? })
}

/// The way in which an answer of a component breaks the contract.
#[derive(Debug, thiserror::Error)]
enum Breach {
    #[error("{0} events for one command, the limit is {MAX_EVENTS}")]
    TooManyEvents(usize),
    #[error("the event {0:?} is not in the manifest")]
    UnknownEvent(String),
    #[error("the event {0} has more than {MAX_EVENT_BYTES} bytes")]
    EventTooLarge(Arc<str>),
    #[error("the events of one command have more than {MAX_EVENTS_BYTES} bytes")]
    EventsTooLarge,
    #[error("there are events, but no state after them")]
    NoState,
    #[error("a state or a view of more than {MAX_STATE_BYTES} bytes")]
    StateTooLarge,
    #[error("halted outside of a saga")]
    Halted,
    #[error(transparent)]
    NotJson(#[from] NotJson),
    #[error(transparent)]
    Rejection(#[from] InvalidRejection),
    #[error(transparent)]
    Denied(#[from] Denied),
}
