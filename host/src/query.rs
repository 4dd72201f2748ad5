//! Asking services: from outside, and for other services. A query changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use uuid::Uuid;

use crate::clock::SharedClock;
use crate::deploy::Registry;
use crate::error::CallError;
use crate::log::EventLog;
use crate::manifest::ReadModel;
use crate::model::{Json, Position, Rejection, StreamId, Version};
use crate::projection::{Database, Projections};
use crate::runtime::{Access, Ask, AskFailure, Component, MAX_DEPTH, QueryCall, ReadSession, Request};
use crate::state::States;

#[derive(Clone, Debug)]
pub struct Answer {
    pub body: Json,
    /// The stream's version, if the query was for the view of one aggregate.
    pub version: Option<Version>,
    /// The log's position that the answer reflects at least.
    pub position: Position,
}

/// How long and how many.
#[derive(Clone, Debug)]
pub struct QueryLimits {
    /// The longest that a query waits for a read model to have a position.
    pub catch_up: Duration,
    /// The longest that one service waits for the answer of another, which may ask for less.
    pub nested: Duration,
    /// Queries of read models at once, at each depth of services that ask each other: those who wait can never keep those
    /// they wait for from running. Each holds a thread and a connection; SQLite keeps a core busy with one.
    pub concurrent: usize,
    /// The longest that a query waits for one of these places.
    pub place: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            catch_up: Duration::from_secs(30),
            nested: Duration::from_secs(2),
            concurrent: 32,
            place: Duration::from_secs(2),
        }
    }
}

/// Answers queries, and is what components ask each other through. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    shared: Arc<Shared>,
}

struct Shared {
    states: Arc<States>,
    registry: Arc<Registry>,
    projections: Arc<Projections>,
    log: Arc<dyn EventLog>,
    clock: SharedClock,
    limits: QueryLimits,
    places: [Arc<Semaphore>; MAX_DEPTH],
}

/// The argument of the query for an aggregate's view.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewArguments {
    id: String,
}

impl Queries {
    pub fn new(
        states: Arc<States>,
        registry: Arc<Registry>,
        projections: Arc<Projections>,
        log: Arc<dyn EventLog>,
        clock: SharedClock,
        limits: QueryLimits,
    ) -> Self {
        let places = std::array::from_fn(|_| Arc::new(Semaphore::new(limits.concurrent)));
        Self { shared: Arc::new(Shared { states, registry, projections, log, clock, limits, places }) }
    }

    /// Asks `service` its query `query` (or the view of one of its aggregates, arguments `{"id": …}`).
    /// `at_least`: wait until the read model has that position (read your writes).
    pub async fn ask(
        &self,
        service: &str,
        query: &str,
        arguments: Json,
        at_least: Option<Position>,
    ) -> Result<Answer, CallError> {
        self.inquiry(at_least).ask(0, service, query, arguments).await
    }

    fn inquiry(&self, at_least: Option<Position>) -> Inquiry {
        let head = *self.shared.log.head().borrow();
        Inquiry {
            shared: self.shared.clone(),
            at_least: at_least.unwrap_or(0),
            reflects: Arc::new(AtomicU64::new(head)),
        }
    }
}

/// For commands and sagas, which ask as it were from outside.
#[async_trait]
impl Ask for Queries {
    async fn ask(&self, request: Request, depth: usize) -> Result<Json, AskFailure> {
        self.inquiry(None).answer_component(request, depth).await
    }
}

/// One question from outside and all that services ask each other because of it: they wait for the same position, and what
/// one of them does not reflect yet, the whole answer does not.
#[derive(Clone)]
struct Inquiry {
    shared: Arc<Shared>,
    at_least: Position,
    /// The lowest position of all read models that were asked.
    reflects: Arc<AtomicU64>,
}

#[async_trait]
impl Ask for Inquiry {
    async fn ask(&self, request: Request, depth: usize) -> Result<Json, AskFailure> {
        self.answer_component(request, depth).await
    }
}

impl Inquiry {
    async fn answer_component(&self, request: Request, depth: usize) -> Result<Json, AskFailure> {
        let Request { service, query, arguments, time_limit } = request;
        if depth >= MAX_DEPTH {
            let reason = format!("services ask each other more than {MAX_DEPTH} calls deep");
            return Err(AskFailure::Unavailable(reason));
        }
        let host_limit = self.shared.limits.nested;
        let limit = time_limit.map_or(host_limit, |limit| limit.min(host_limit));
        match timeout(limit, self.ask(depth, &service, &query, arguments)).await {
            Ok(Ok(answer)) => Ok(answer.body),
            Ok(Err(CallError::Rejected(rejection))) => Err(AskFailure::Rejected(rejection)),
            Ok(Err(error)) => Err(AskFailure::Unavailable(error.to_string())),
            Err(_) => Err(AskFailure::Unavailable(format!("{service} has not answered within {limit:?}"))),
        }
    }

    async fn ask(
        &self,
        depth: usize,
        service: &str,
        query: &str,
        arguments: Json,
    ) -> Result<Answer, CallError> {
        let deployed = self.shared.registry.current();
        let component =
            deployed.service(service).ok_or_else(|| CallError::Unknown(format!("service {service}")))?;
        let manifest = component.manifest();
        if manifest.aggregate(query).is_some() {
            return self.view(query, &arguments).await;
        }
        let known = manifest.query(query);
        let known = known.ok_or_else(|| CallError::Unknown(format!("query {query} of {service}")))?;
        let call = Call {
            inquiry: self.clone(),
            component: component.clone(),
            query: known.name.clone(),
            arguments,
            depth,
        };
        match &manifest.read_model {
            None => call.run(None).await.0,
            Some(model) => self.read(call, model).await,
        }
    }

    /// The view of one aggregate, as the log has it.
    async fn view(&self, aggregate: &str, arguments: &Json) -> Result<Answer, CallError> {
        let ViewArguments { id } = arguments.read().map_err(|error| invalid_arguments(&error))?;
        let stream = StreamId::new(aggregate, &id).map_err(|error| invalid_arguments(&error))?;
        let position = *self.shared.log.head().borrow();
        let viewed = self.shared.states.view(&stream, None).await?;
        let viewed = viewed.ok_or_else(|| Rejection::not_found(&stream))?;
        Ok(Answer { body: viewed.view, version: Some(viewed.version), position })
    }

    /// Runs a call with a session on the service's read model.
    async fn read(&self, call: Call, model: &ReadModel) -> Result<Answer, CallError> {
        let Shared { projections, limits, places, .. } = &*self.shared;
        let unusable = |reason| CallError::ReadModel { service: call.service().clone(), reason };
        if self.at_least > 0 {
            let caught_up = projections.wait(call.service(), self.at_least, limits.catch_up).await;
            caught_up.map_err(|behind| call.not_caught_up(behind.reached))?;
        }
        let database = projections
            .database(call.service(), model)
            .ok_or_else(|| unusable(format!("version {} of it is not built", model.version)))?;
        let busy = || CallError::Busy { queue: "the host's queue of queries" };
        let places = places.get(call.depth).cloned().ok_or_else(busy)?;
        let place = timeout(limits.place, places.acquire_owned()).await.map_err(|_| busy())?;
        let service = call.service().clone();
        let answer = spawn_blocking(move || {
            let _place = place;
            call.read(&database)
        });
        answer.await.unwrap_or_else(|error| {
            Err(CallError::ReadModel { service, reason: format!("the query was broken off: {error}") })
        })
    }
}

/// One call of a component's `answer`.
struct Call {
    inquiry: Inquiry,
    component: Component,
    query: Arc<str>,
    arguments: Json,
    depth: usize,
}

impl Call {
    fn service(&self) -> &Arc<str> {
        &self.component.manifest().service
    }

    fn not_caught_up(&self, reached: Position) -> CallError {
        CallError::NotCaughtUp { service: self.service().clone(), at_least: self.inquiry.at_least, reached }
    }

    async fn run(&self, read_model: Option<ReadSession>) -> (Result<Answer, CallError>, Option<ReadSession>) {
        let call = QueryCall {
            id: Uuid::now_v7().to_string().into(),
            time_ms: self.inquiry.shared.clock.now_ms(),
            depth: self.depth,
            ask: Arc::new(self.inquiry.clone()),
            read_model,
        };
        let (answer, session) = self.component.answer(&self.query, &self.arguments, call).await;
        let answer = match answer {
            Ok(Ok(body)) => {
                Ok(Answer { body, version: None, position: self.inquiry.reflects.load(Ordering::Relaxed) })
            }
            Ok(Err(rejection)) => Err(rejection.into()),
            Err(fault) => Err(fault.into()),
        };
        (answer, session)
    }

    /// Runs the call in one transaction, so that what it reads and the position agree. Blocks while SQLite works.
    fn read(&self, database: &Database) -> Result<Answer, CallError> {
        let unusable = |reason| CallError::ReadModel { service: self.service().clone(), reason };
        let (connection, position) = database.begin_read().map_err(|error| unusable(error.to_string()))?;
        if position < self.inquiry.at_least {
            // It has been made anew since it was waited for.
            database.end_read(connection);
            return Err(self.not_caught_up(position));
        }
        self.inquiry.reflects.fetch_min(position, Ordering::Relaxed);
        let session = ReadSession { connection, access: Access::Read };
        let (answer, session) = Handle::current().block_on(self.run(Some(session)));
        let Some(ReadSession { connection, .. }) = session else { return answer };
        let trouble = connection.trouble();
        database.end_read(connection);
        match (answer, trouble) {
            (Err(CallError::Fault(_)), Some(trouble)) => Err(unusable(format!("{trouble:?}"))),
            (answer, _) => answer,
        }
    }
}

fn invalid_arguments(error: &dyn std::error::Error) -> Rejection {
    Rejection {
        code: "invalid-arguments".to_owned(),
        message: format!("The arguments cannot be read: {error}."),
        details: None,
    }
}
