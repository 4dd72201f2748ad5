//! A component as the rest of the host calls it: the contract's exports in the host's own types.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use wasmtime::Store;

use super::bindings::{self, Service, types};
use super::guest::{Identity, InstanceData, Scope};
use super::host::{Ask, HttpCall, Outgoing, ReadSession, Steps};
use super::instance::{CallFailure, Instances, Lane, Tally};
use crate::contract::{HttpOrigin, Manifest};
use crate::error::{Fault, FaultKind};
use crate::model::{
    Actor, CommandName, CorrelationId, Digest, Json, NewEvent, QueryName, Recorded, Rejection, SagaId,
    SagaName, StreamId,
};

/// Events of one decision. A command that causes more should be several commands.
const MAX_EVENTS: usize = 1_000;
/// Bytes of an event's payload; what the edge takes as a command's payload by default.
const MAX_EVENT_BYTES: usize = 1 << 20;
/// Bytes of a state, and of a view. Beyond it a command costs more than a tenth of a second.
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

/// An aggregate as the host has it: a state and the events since.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub stream: &'a StreamId,
    pub state: Option<&'a Json>,
    pub since: &'a [Recorded],
}

/// The circumstances of a command.
#[derive(Clone)]
pub struct Context {
    pub command_id: Arc<str>,
    pub correlation_id: CorrelationId,
    pub time_ms: u64,
    pub actor: Actor,
    pub ask: Arc<dyn Ask>,
    pub http: Arc<dyn Outgoing>,
}

/// The state of an aggregate, and what clients see of it.
#[derive(Clone, Debug)]
pub struct Folded {
    pub state: Json,
    pub view: Json,
}

/// What a command leads to.
#[derive(Clone, Debug)]
pub struct Decision {
    pub events: Vec<NewEvent>,
    /// None if the aggregate still does not exist.
    pub after: Option<Folded>,
}

/// How a saga's run ended.
#[derive(Debug)]
pub enum SagaEnd {
    Returned(Result<(), Rejection>),
    /// The steps' driver ended it on purpose.
    Halted,
    Fault(Fault),
}

impl Component {
    pub(super) fn new(identity: Arc<Identity>, instances: Instances) -> Self {
        Self { loaded: Arc::new(Loaded { identity, instances }) }
    }

    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.loaded.identity.manifest
    }

    pub fn digest(&self) -> Digest {
        self.loaded.identity.digest
    }

    /// How many calls it has had, and how many of them have faulted.
    pub(crate) fn tally(&self) -> Tally {
        self.loaded.instances.tally()
    }

    /// The origins that it asks for, with the configuration that it has.
    pub fn origins(&self) -> &[HttpOrigin] {
        &self.loaded.identity.http.origins
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
        let scope = command_scope("decide", command, context);
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
        let scope = command_scope("compensate", command, context);
        let call = self.call(Lane::Request, scope, move |service, store| {
            async move { service.kontor_service_aggregates().call_compensate(store, &target, &input).await }
                .boxed()
        });
        let (result, _) = call.await;
        self.decision("compensate", command, aggregate, result)
    }

    /// Folds events into a state; none if the aggregate does not exist.
    pub async fn evolve(&self, target: Target<'_>) -> Result<Option<Folded>, Fault> {
        let subject: Arc<str> = target.stream.aggregate().into();
        let scope = Scope {
            operation: "evolve",
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
        folded.map(host_folded).transpose().map_err(|detail| self.broken("evolve", &subject, detail))
    }

    /// Answers a query.
    pub(crate) async fn answer(&self, query: &QueryName, arguments: &Json, call: QueryCall) -> Answered {
        let scope = Scope {
            operation: "answer",
            subject: query.shared(),
            id: call.id,
            time_ms: call.time_ms,
            depth: call.depth,
            ask: Some(call.ask),
            read_model: call.read_model,
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
                    Ok(text) => bindings::json("the answer", text).map(Ok).map_err(|error| error.to_string()),
                    Err(rejection) => host_rejection(rejection).map(Err),
                }
                .map_err(|detail| self.broken("answer", &query.shared(), detail))
            });
        let used_moment = scope.as_ref().is_none_or(|scope| scope.used_moment);
        Answered { answer, read_model: scope.and_then(|scope| scope.read_model), used_moment }
    }

    /// Applies events to the read model inside the session's transaction. The inner error is the component's own.
    pub(crate) async fn project(
        &self,
        events: &[Recorded],
        session: ReadSession,
    ) -> (Result<Result<(), String>, Fault>, Option<ReadSession>) {
        let subject: Arc<str> = events.first().map_or_else(|| "nothing".into(), |event| event.name.shared());
        let scope = Scope {
            operation: "project",
            subject: subject.clone(),
            id: events.first().map(Recorded::id).unwrap_or_default().into(),
            time_ms: events.first().map_or(0, |event| event.meta.time_ms),
            read_model: Some(session),
            ..Scope::default()
        };
        let events: Vec<_> = events.iter().map(types::RecordedEvent::from).collect();
        let call = self.call(Lane::Background, scope, move |service, store| {
            async move { service.kontor_service_projections().call_project(store, &events).await }.boxed()
        });
        let (result, scope) = call.await;
        let result = result.map_err(|failure| self.as_fault("project", &subject, failure));
        (result, scope.and_then(|scope| scope.read_model))
    }

    /// Runs a saga from its first line; `steps` answers what the journal has, and does the rest.
    pub async fn run_saga(
        &self,
        saga: &SagaName,
        id: &SagaId,
        trigger: &Recorded,
        steps: Box<dyn Steps>,
    ) -> SagaEnd {
        let scope = Scope {
            operation: "run",
            subject: saga.shared(),
            id: id.shared(),
            time_ms: trigger.meta.time_ms,
            steps: Some(steps),
            ..Scope::default()
        };
        let (name, trigger) = (saga.as_str().to_owned(), types::RecordedEvent::from(trigger));
        let call = self.call(Lane::Saga, scope, move |service, store| {
            async move { service.kontor_service_sagas().call_run(store, &name, &trigger).await }.boxed()
        });
        let (result, _) = call.await;
        match result {
            Ok(Ok(())) => SagaEnd::Returned(Ok(())),
            Ok(Err(rejection)) => match host_rejection(rejection) {
                Ok(rejection) => SagaEnd::Returned(Err(rejection)),
                Err(detail) => SagaEnd::Fault(self.broken("run", &saga.shared(), detail)),
            },
            Err(CallFailure::Halted) => SagaEnd::Halted,
            Err(CallFailure::Fault(fault)) => SagaEnd::Fault(fault),
        }
    }

    async fn call<R, F>(&self, lane: Lane, scope: Scope, call: F) -> (Result<R, CallFailure>, Option<Scope>)
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
        let broken = |detail: String| self.broken(operation, &command.shared(), detail);
        match result.map_err(|failure| self.as_fault(operation, &command.shared(), failure))? {
            Err(rejection) => host_rejection(rejection).map(Err).map_err(broken),
            Ok(decision) => self.host_decision(aggregate, decision).map(Ok).map_err(broken),
        }
    }

    /// Checks what the component decided: the log takes only what the manifest names.
    fn host_decision(&self, aggregate: &str, decision: bindings::Decision) -> Result<Decision, String> {
        if decision.events.len() > MAX_EVENTS {
            return Err(format!(
                "{} events for one command, the limit is {MAX_EVENTS}",
                decision.events.len()
            ));
        }
        let known = self.manifest().aggregate(aggregate).map(|aggregate| aggregate.events.as_slice());
        let known = known.unwrap_or_default();
        let event = |event: types::Event| {
            // The manifest's own name is shared, so an event costs no new string.
            let name = known.iter().find(|known| known.name == *event.name).map(|known| known.name.clone());
            let name = name.ok_or_else(|| format!("the event {:?} is not in the manifest", event.name))?;
            if event.payload.len() > MAX_EVENT_BYTES {
                return Err(format!("the event {name} has more than {MAX_EVENT_BYTES} bytes"));
            }
            let payload =
                bindings::json("an event's payload", event.payload).map_err(|error| error.to_string())?;
            Ok(NewEvent { name, payload })
        };
        let events = decision.events.into_iter().map(event).collect::<Result<Vec<_>, _>>()?;
        let after = decision.after.map(host_folded).transpose()?;
        if !events.is_empty() && after.is_none() {
            return Err("there are events, but no state after them".to_owned());
        }
        Ok(Decision { events, after })
    }

    fn broken(&self, operation: &'static str, subject: &Arc<str>, detail: String) -> Fault {
        let failure = self.loaded.instances.fault((operation, subject.clone()), FaultKind::Contract, detail);
        self.as_fault(operation, subject, failure)
    }

    fn as_fault(&self, operation: &'static str, subject: &Arc<str>, failure: CallFailure) -> Fault {
        match failure {
            CallFailure::Fault(fault) => fault,
            CallFailure::Halted => self.broken(operation, subject, "halted outside of a saga".to_owned()),
        }
    }
}

/// What a query's call may use.
pub(crate) struct QueryCall {
    pub(crate) id: Arc<str>,
    pub(crate) time_ms: u64,
    pub(crate) depth: usize,
    pub(crate) ask: Arc<dyn Ask>,
    pub(crate) read_model: Option<ReadSession>,
}

/// How a query's call ended.
pub(crate) struct Answered {
    pub(crate) answer: Result<Result<Json, Rejection>, Fault>,
    /// The connection to the read model, unless it was lost.
    pub(crate) read_model: Option<ReadSession>,
    /// Whether the component has looked at the clock or drawn random numbers, so that it may answer otherwise another time.
    pub(crate) used_moment: bool,
}

fn command_scope(operation: &'static str, command: &CommandName, context: &Context) -> Scope {
    Scope {
        operation,
        subject: command.shared(),
        id: context.command_id.clone(),
        time_ms: context.time_ms,
        ask: Some(context.ask.clone()),
        http: Some(HttpCall {
            outgoing: context.http.clone(),
            correlation_id: context.correlation_id.clone(),
        }),
        ..Scope::default()
    }
}

fn guest_target(target: Target<'_>) -> bindings::Target {
    bindings::Target {
        aggregate: target.stream.aggregate().to_owned(),
        id: target.stream.id().to_owned(),
        state: target.state.map(|state| state.as_str().to_owned()),
        since: target.since.iter().map(types::Event::from).collect(),
    }
}

fn guest_context(context: &Context) -> types::Context {
    types::Context {
        command_id: context.command_id.as_ref().to_owned(),
        correlation_id: context.correlation_id.as_str().to_owned(),
        time_ms: context.time_ms,
        actor: context.actor.as_str().to_owned(),
    }
}

fn host_folded(folded: bindings::Folded) -> Result<Folded, String> {
    if folded.state.len().max(folded.view.len()) > MAX_STATE_BYTES {
        return Err(format!("a state or a view of more than {MAX_STATE_BYTES} bytes"));
    }
    let text = |error: bindings::NotJson| error.to_string();
    Ok(Folded {
        state: bindings::json("the state", folded.state).map_err(text)?,
        view: bindings::json("the view", folded.view).map_err(text)?,
    })
}

fn host_rejection(rejection: types::Rejection) -> Result<Rejection, String> {
    rejection.into_host().map_err(|error| error.to_string())
}
