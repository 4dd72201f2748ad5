//! Asking services: from outside, and for other services. A query changes nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::aggregate::{CallError, States, Viewed};
use crate::clock::SharedClock;
use crate::deployed::Registry;
use crate::error::Fault;
use crate::log::EventLog;
use crate::model::{Digest, Json, Position, QueryName, Rejection, ServiceName, StreamId, Version};
use crate::projection::{Live, Projections};
use crate::runtime::{
    Access, Answered, Ask, AskFailure, Component, Guarded, MAX_DEPTH, QueryCall, ReadSession, Request,
};

#[derive(Clone, Debug)]
pub struct Answer {
    pub body: Json,
    /// None if the answer may be another one next time, though nothing has changed: it comes from several services, or
    /// depends on the time or on chance.
    pub revision: Option<Revision>,
    /// The log's position that the answer reflects at least.
    pub position: Position,
}

/// What an answer follows from: as long as that is the same, so is the answer to the same question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// A component's view of one aggregate at this version.
    View { component: Digest, version: Version },
    /// A component's reading of its read model.
    ReadModel {
        component: Digest,
        /// Which database: another one after each start, because the component may be configured otherwise.
        opening: Uuid,
        /// How often it has been changed. Events that the read model does not follow change nothing.
        changes: u64,
    },
}

/// How long and how many.
#[derive(Clone, Debug)]
pub struct QueryLimits {
    /// The longest that a query waits for the position that it is to see; a caller may ask for less.
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

    /// Begins a question. `at_least`: what it is answered from must have that position of the log (read your writes), and
    /// is waited for, for `wait` at most, if that is less than the limit.
    pub fn inquiry(&self, at_least: Option<Position>, wait: Option<Duration>) -> Inquiry {
        let limit = self.shared.limits.catch_up;
        Inquiry {
            shared: self.shared.clone(),
            at_least: at_least.unwrap_or_default(),
            deadline: Instant::now() + wait.map_or(limit, |wait| wait.min(limit)),
            trace: Arc::default(),
        }
    }
}

/// For commands and sagas, which ask as it were from outside.
#[async_trait]
impl Ask for Queries {
    async fn ask(&self, request: Request, depth: usize) -> Result<Json, AskFailure> {
        self.inquiry(None, None).answer_component(request, depth).await
    }
}

/// One question from outside and all that services ask each other because of it: they wait for the same position, and what
/// one of them does not reflect yet, the whole answer does not.
#[derive(Clone)]
pub struct Inquiry {
    shared: Arc<Shared>,
    at_least: Position,
    /// Until when that position is waited for.
    deadline: Instant,
    trace: Arc<Trace>,
}

/// What has come of an inquiry so far.
#[derive(Default)]
struct Trace {
    /// The lowest position of the log and all read models that were asked.
    reflects: AtomicU64,
    /// Whether a component has asked a service.
    composed: AtomicBool,
    /// The first read model that a component asked for and that did not have the position in time.
    behind: OnceLock<CallError>,
}

#[async_trait]
impl Ask for Inquiry {
    async fn ask(&self, request: Request, depth: usize) -> Result<Json, AskFailure> {
        self.trace.composed.store(true, Ordering::Relaxed);
        self.answer_component(request, depth).await
    }
}

impl Inquiry {
    /// Asks `service` its query `query` (or the view of one of its aggregates, arguments `{"id": …}`).
    pub async fn answer(&self, service: &str, query: &str, arguments: Json) -> Result<Answer, CallError> {
        self.await_log().await?;
        let answer = self.ask(0, service, query, arguments).await;
        match (answer, self.trace.behind.get()) {
            // It could not do without what is not there yet.
            (Err(CallError::Fault(_)), Some(behind)) => Err(behind.clone()),
            (answer, _) => answer,
        }
    }

    /// The revision of the answer as of now, without running a component; none if it is known only with the answer. A
    /// component that has given an answer with this revision would give the same again.
    pub async fn revision(&self, service: &str, query: &str) -> Result<Option<Revision>, CallError> {
        self.await_log().await?;
        let component = self.component(service)?;
        let manifest = component.manifest();
        if manifest.read_model.is_none() || manifest.query(query).is_none() {
            return Ok(None);
        }
        let inquiry = self.clone();
        let look = move |live: &Live| {
            let (connection, revision) = inquiry.begin_read(live)?;
            live.database.end_read(connection);
            Ok(Some(revision))
        };
        self.on_read_model(0, &component, look).await
    }

    /// The log's position that everything found out so far reflects at least, be it an answer or a rejection.
    pub fn reflects(&self) -> Position {
        Position::new(self.trace.reflects.load(Ordering::Relaxed))
    }

    /// Waits until the log has the position. It always has those that it gave itself.
    async fn await_log(&self) -> Result<(), CallError> {
        let mut head = self.shared.log.head();
        let waited = timeout_at(self.deadline, head.wait_for(|head| *head >= self.at_least)).await;
        let arrived = matches!(waited, Ok(Ok(_)));
        drop(waited);
        let reached = *head.borrow();
        if !arrived {
            return Err(CallError::Ahead { at_least: self.at_least, reached });
        }
        self.trace.reflects.store(reached.get(), Ordering::Relaxed);
        Ok(())
    }

    async fn answer_component(&self, request: Request, depth: usize) -> Result<Json, AskFailure> {
        let Request { service, query, arguments, time_limit } = request;
        if depth >= MAX_DEPTH {
            let reason = format!("services ask each other more than {MAX_DEPTH} calls deep");
            return Err(AskFailure::Unavailable(reason));
        }
        let host_limit = self.shared.limits.nested;
        let limit = time_limit.map_or(host_limit, |limit| limit.min(host_limit));
        let error = match timeout(limit, self.ask(depth, &service, &query, arguments)).await {
            Ok(Ok(answer)) => return Ok(answer.body),
            Ok(Err(CallError::Rejected(rejection))) => return Err(AskFailure::Rejected(rejection)),
            Ok(Err(error)) => error,
            Err(_) => match self.shared.projections.position(&service) {
                Some(reached) if reached < self.at_least => self.not_caught_up(&service, reached),
                _ => {
                    let reason = format!("{service} has not answered within {limit:?}");
                    return Err(AskFailure::Unavailable(reason));
                }
            },
        };
        let reason = error.to_string();
        if matches!(error, CallError::NotCaughtUp { .. }) {
            self.trace.behind.get_or_init(|| error);
        }
        Err(AskFailure::Unavailable(reason))
    }

    async fn ask(
        &self,
        depth: usize,
        service: &str,
        query: &str,
        arguments: Json,
    ) -> Result<Answer, CallError> {
        let component = self.component(service)?;
        let manifest = component.manifest().clone();
        if manifest.aggregate(query).is_some() {
            return self.view(query, &arguments).await;
        }
        let known = manifest.query(query);
        let known = known.ok_or_else(|| CallError::Unknown(format!("query {query} of {service}")))?;
        let call = Call { inquiry: self.clone(), query: known.name.clone(), arguments, depth };
        match &manifest.read_model {
            None => call.outcome(call.run(&component, None).await.answer, None),
            Some(_) => self.on_read_model(depth, &component, move |live| call.read(live)).await,
        }
    }

    fn component(&self, service: &str) -> Result<Component, CallError> {
        let deployed = self.shared.registry.current();
        let component = deployed.service(service).cloned();
        component.ok_or_else(|| CallError::Unknown(format!("service {service}")))
    }

    /// The view of one aggregate, as the log has it.
    async fn view(&self, aggregate: &str, arguments: &Json) -> Result<Answer, CallError> {
        let ViewArguments { id } = arguments.read().map_err(|error| invalid_arguments(&error))?;
        let stream = StreamId::new(aggregate, &id).map_err(|error| invalid_arguments(&error))?;
        let viewed = self.shared.states.view(&stream, None).await?;
        let Viewed { component, version, view } = viewed.ok_or_else(|| Rejection::not_found(&stream))?;
        let revision = Some(Revision::View { component, version });
        Ok(Answer { body: view, revision, position: self.reflects() })
    }

    /// Does something with a service's read model when it has the position, on a thread where SQLite may block.
    async fn on_read_model<T: Send + 'static>(
        &self,
        depth: usize,
        deployed: &Component,
        work: impl FnOnce(&Live) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let Shared { projections, limits, places, .. } = &*self.shared;
        let service = &deployed.manifest().service;
        if self.at_least > Position::START {
            let limit = self.deadline.saturating_duration_since(Instant::now());
            let caught_up = projections.wait(service.as_str(), self.at_least, limit).await;
            caught_up.map_err(|behind| self.not_caught_up(service.as_str(), behind.reached))?;
        }
        let live = projections.live(deployed);
        let live = live.ok_or_else(|| unusable(service, "it is not there yet".to_owned()))?;
        let busy = || CallError::Busy { queue: "the host's queue of queries" };
        let places = places.get(depth).cloned().ok_or_else(busy)?;
        let place = timeout(limits.place, places.acquire_owned()).await.map_err(|_| busy())?;
        let done = spawn_blocking(move || {
            let _place = place;
            work(&live)
        });
        let broken_off = |error| unusable(service, format!("the query was broken off: {error}"));
        done.await.unwrap_or_else(|error| Err(broken_off(error)))
    }

    /// A connection in a transaction that sees at least the position, and the revision of what the component reads there.
    fn begin_read(&self, Live { component, database }: &Live) -> Result<(Guarded, Revision), CallError> {
        let service = &component.manifest().service;
        let trouble = |error: rusqlite::Error| unusable(service, error.to_string());
        let (connection, position) = database.begin_read().map_err(trouble)?;
        let content = match position < self.at_least {
            // It has been made anew since it was waited for.
            true => Err(self.not_caught_up(service.as_str(), position)),
            false => database.content(&connection).map_err(trouble),
        };
        match content {
            Ok((opening, changes)) => {
                self.trace.reflects.fetch_min(position.get(), Ordering::Relaxed);
                let component = component.digest();
                Ok((connection, Revision::ReadModel { component, opening, changes }))
            }
            Err(error) => {
                database.end_read(connection);
                Err(error)
            }
        }
    }

    fn not_caught_up(&self, service: &str, reached: Position) -> CallError {
        CallError::NotCaughtUp { service: service.into(), at_least: self.at_least, reached }
    }
}

/// One call of a component's `answer`.
struct Call {
    inquiry: Inquiry,
    query: QueryName,
    arguments: Json,
    depth: usize,
}

impl Call {
    async fn run(&self, component: &Component, read_model: Option<ReadSession>) -> Answered {
        let (service, query) = (component.manifest().service.shared(), self.query.shared());
        metrics::counter!("kontor_queries_total", "service" => service, "query" => query).increment(1);
        let call = QueryCall {
            id: Uuid::now_v7().to_string().into(),
            time_ms: self.inquiry.shared.clock.now_ms(),
            depth: self.depth,
            ask: Arc::new(self.inquiry.clone()),
            read_model,
        };
        component.answer(&self.query, &self.arguments, call).await
    }

    fn outcome(
        &self,
        answer: Result<Result<Json, Rejection>, Fault>,
        revision: Option<Revision>,
    ) -> Result<Answer, CallError> {
        Ok(Answer { body: answer??, revision, position: self.inquiry.reflects() })
    }

    /// Runs the call in one transaction, so that what it reads, its revision and the position agree. Blocks while SQLite
    /// works.
    fn read(&self, live: &Live) -> Result<Answer, CallError> {
        let Live { component, database } = live;
        let service = &component.manifest().service;
        if component.manifest().query(self.query.as_str()).is_none() {
            return Err(unusable(
                service,
                format!("it has no {} before its new version is built", self.query),
            ));
        }
        let (connection, revision) = self.inquiry.begin_read(live)?;
        let session = ReadSession { connection, access: Access::Read };
        let answered = Handle::current().block_on(self.run(component, Some(session)));
        let Some(ReadSession { connection, .. }) = answered.read_model else {
            return self.outcome(answered.answer, None);
        };
        let uncertain = answered.used_moment
            || connection.used_moment()
            || self.inquiry.trace.composed.load(Ordering::Relaxed);
        let trouble = connection.trouble();
        database.end_read(connection);
        match (self.outcome(answered.answer, (!uncertain).then_some(revision)), trouble) {
            (Err(CallError::Fault(_)), Some(trouble)) => Err(unusable(service, format!("{trouble:?}"))),
            (outcome, _) => outcome,
        }
    }
}

fn unusable(service: &ServiceName, reason: String) -> CallError {
    CallError::ReadModel { service: service.clone(), reason }
}

fn invalid_arguments(error: &dyn std::error::Error) -> Rejection {
    Rejection {
        code: "invalid-arguments".to_owned(),
        message: format!("The arguments cannot be read: {error}."),
        details: None,
    }
}
