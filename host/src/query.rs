//! Queries: from outside, and of other services. A query changes nothing.

mod error;

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::aggregate::{StateCache, Viewed};
use crate::clock::{SharedClock, deadline_after};
use crate::contract::Aggregate;
use crate::deployed::Registry;
use crate::error::Fault;
use crate::log::EventLog;
use crate::model::{Caller, Digest, Json, Position, QueryName, Rejection, ServiceName, StreamId, Version};
use crate::projection::{Behind, LiveReadModel, Projections, ReadModelError, Unusable};
use crate::runtime::{
    Answered, Ask, AskFailure, Component, Guarded, MAX_DEPTH, QueryCall, ReadSession, Request,
};
use crate::shares::Shares;

pub use error::QueryError;

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The JSON text that the component answered with.
    pub body: Json,
    /// The content that the answer follows from. `None` if the answer may change though no event is recorded:
    /// it comes from several services, or depends on the time or on chance.
    pub revision: Option<Revision>,
    /// The position in the log that the answer reflects at least.
    pub position: Position,
}

/// The content that an answer follows from: as long as it is the same, so is the answer to the same question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// A component's view of one aggregate.
    View {
        /// The component that folded the aggregate.
        component: Digest,
        /// The version of the aggregate.
        version: Version,
    },
    /// A component's reading of its read model.
    ReadModel {
        /// The component that answered.
        component: Digest,
        /// The database. Each start gives it another id, because the component may be configured differently.
        opening: Uuid,
        /// The number of changes to it. Events that the read model does not follow change nothing.
        changes: u64,
    },
}

/// The limits of queries.
#[derive(Clone, Debug)]
pub struct QueryLimits {
    /// The longest that a query waits for the position that it must see; a caller may ask for less.
    pub catch_up: Duration,
    /// The longest that one service waits for the answer of another, which may ask for less.
    pub nested: Duration,
    /// The number of queries that read at the same time at each depth of services that ask each other. A
    /// query that waits never takes the place of one that it waits for, because that one is deeper. Each
    /// holds a thread and a connection; SQLite keeps a core busy with one.
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

/// The parts of a host that queries use.
pub struct QueryDeps {
    /// The states of aggregates, for their views.
    pub states: Arc<StateCache>,
    /// The deployed services.
    pub registry: Arc<Registry>,
    /// The read models.
    pub projections: Arc<Projections>,
    /// The log, whose head a query may wait for.
    pub log: Arc<dyn EventLog>,
    /// The clock that gives a component its time.
    pub clock: SharedClock,
}

/// Answers the queries of clients and of components. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    inner: Arc<Inner>,
}

struct Inner {
    deps: QueryDeps,
    limits: QueryLimits,
    /// The places at each depth, see [`QueryLimits::concurrent`].
    places: [Arc<Semaphore>; MAX_DEPTH],
    /// Those of each service.
    shares: [Shares; MAX_DEPTH],
}

/// The position that an answer must reflect, and the patience of its caller.
#[derive(Clone, Debug, Default)]
pub struct AtLeast {
    /// The position. `None`: the answer reflects what the host has.
    pub position: Option<Position>,
    /// The time to wait for it, at most [`QueryLimits::catch_up`], which holds without a time.
    pub wait: Option<Duration>,
    /// Becomes true when the host shuts down, which ends the wait.
    pub stopping: Option<watch::Receiver<bool>>,
}

impl AtLeast {
    /// Returns a position that is waited for as long as any.
    pub fn position(position: Position) -> Self {
        Self { position: Some(position), ..Self::default() }
    }
}

/// The end of a wait.
#[derive(Clone)]
struct Patience {
    deadline: Instant,
    stopping: Option<watch::Receiver<bool>>,
}

impl Patience {
    /// Resolves at the deadline, or when the host shuts down.
    async fn end(&self) {
        let stopped = async {
            match self.stopping.clone() {
                // Err: the host is gone.
                Some(mut stopping) => drop(stopping.wait_for(|stopping| *stopping).await),
                None => pending().await,
            }
        };
        let _ = timeout_at(self.deadline, stopped).await;
    }
}

/// The argument of the query for an aggregate's view.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewArguments {
    id: String,
}

impl Queries {
    /// Answers from these parts of a host, within these limits.
    pub fn new(deps: QueryDeps, limits: QueryLimits) -> Self {
        let places = std::array::from_fn(|_| Arc::new(Semaphore::new(limits.concurrent)));
        let shares = std::array::from_fn(|_| Shares::of(limits.concurrent));
        Self { inner: Arc::new(Inner { deps, limits, places, shares }) }
    }

    /// Begins a question. The answer reflects the log up to the position (read your writes).
    pub fn inquiry(&self, caller: Caller, at_least: AtLeast) -> Inquiry {
        let limit = self.inner.limits.catch_up;
        let AtLeast { position, wait, stopping } = at_least;
        Inquiry {
            inner: self.inner.clone(),
            caller,
            at_least: position.unwrap_or_default(),
            patience: Patience {
                deadline: deadline_after(wait.map_or(limit, |wait| wait.min(limit))),
                stopping,
            },
            trace: Arc::default(),
        }
    }

    /// Begins a question that is answered from what the host has now.
    pub fn inquiry_now(&self, caller: Caller) -> Inquiry {
        self.inquiry(caller, AtLeast::default())
    }
}

/// Commands and sagas ask like clients: each of their queries is a question of its own.
#[async_trait]
impl Ask for Queries {
    async fn ask(&self, caller: &Caller, request: Request, depth: usize) -> Result<Json, AskFailure> {
        self.inquiry_now(caller.clone()).answer_component(request, depth).await
    }
}

/// One question from outside and all queries of services to each other that follow from it. All of them wait
/// for the same position, and the answer reflects only what the least advanced of them reflects.
#[derive(Clone)]
pub struct Inquiry {
    inner: Arc<Inner>,
    /// The caller, also for the queries of services to each other.
    caller: Caller,
    at_least: Position,
    patience: Patience,
    trace: Arc<Trace>,
}

/// The findings of an inquiry so far.
#[derive(Default)]
struct Trace {
    /// The lowest position of the log and all read models that were asked.
    reflects: AtomicU64,
    /// True if a component has asked a service.
    composed: AtomicBool,
    /// The first service that a component asked and whose read model did not have the position in time.
    behind: OnceLock<(ServiceName, Behind)>,
}

#[async_trait]
impl Ask for Inquiry {
    async fn ask(&self, _: &Caller, request: Request, depth: usize) -> Result<Json, AskFailure> {
        self.trace.composed.store(true, Ordering::Relaxed);
        self.answer_component(request, depth).await
    }
}

impl Inquiry {
    /// Asks `service` its query `query` (or the view of one of its aggregates, arguments `{"id": …}`).
    pub async fn answer(&self, service: &str, query: &str, arguments: Value) -> Result<Answer, QueryError> {
        self.await_log().await?;
        let answer = self.ask(0, service, query, arguments).await;
        match (answer, self.trace.behind.get()) {
            // The component failed for want of the answer of a read model that is behind.
            (Err(QueryError::Fault(_)), Some((service, behind))) => Err(behind.of(service)),
            (answer, _) => answer,
        }
    }

    /// Returns the revision of the answer as of now, without running a component, or `None` if it is known
    /// only with the answer. A component that has given an answer with this revision would give the same
    /// again.
    pub async fn revision(&self, service: &str, query: &str) -> Result<Option<Revision>, QueryError> {
        self.await_log().await?;
        let component = self.component(service)?;
        let manifest = component.manifest();
        if manifest.read_model.is_none() || manifest.query(query).is_none() {
            return Ok(None);
        }
        let inquiry = self.clone();
        let look = move |live: &LiveReadModel| {
            let (connection, revision) = inquiry.begin_read(live)?;
            live.database.end_read(connection);
            Ok(Some(revision))
        };
        self.on_read_model(0, &component, look).await
    }

    /// Returns the position in the log that all findings so far reflect at least, be they an answer or a
    /// rejection.
    pub fn reflects(&self) -> Position {
        Position::new(self.trace.reflects.load(Ordering::Relaxed))
    }

    /// Waits until the log has the position. It always has the positions that it gave itself.
    pub async fn await_log(&self) -> Result<(), QueryError> {
        let mut head = self.inner.deps.log.head();
        let arrived = tokio::select! {
            biased;
            arrived = head.wait_for(|head| *head >= self.at_least) => arrived.is_ok(),
            () = self.patience.end() => false,
        };
        let reached = *head.borrow();
        if !arrived {
            return Err(QueryError::Ahead { at_least: self.at_least, reached });
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
        let host_limit = self.inner.limits.nested;
        let limit = time_limit.map_or(host_limit, |limit| limit.min(host_limit));
        let ask = async {
            let arguments = arguments.normalized().map_err(|error| invalid_arguments(&error))?.value;
            self.ask(depth, &service, &query, arguments).await
        };
        let error = match timeout(limit, ask).await {
            Ok(Ok(answer)) => return Ok(answer.body),
            Ok(Err(error)) => match error.into_rejection() {
                Ok(rejection) => return Err(AskFailure::Rejected(rejection)),
                Err(error) => error,
            },
            Err(_) => match self.inner.deps.projections.check(&service, self.at_least) {
                Err(behind) => behind.of(&ServiceName::from(service.as_str())),
                Ok(_) => {
                    let reason = format!("{service} has not answered within {limit:?}");
                    return Err(AskFailure::Unavailable(reason));
                }
            },
        };
        let reason = error.detail();
        if let QueryError::Behind { service, behind } = error {
            self.trace.behind.get_or_init(|| (service, behind));
        }
        Err(AskFailure::Unavailable(reason))
    }

    async fn ask(
        &self,
        depth: usize,
        service: &str,
        query: &str,
        arguments: Value,
    ) -> Result<Answer, QueryError> {
        let component = self.component(service)?;
        let checked = component.schemas().check_arguments(query, &arguments);
        checked.map_err(QueryError::InvalidArguments)?;
        let manifest = component.manifest().clone();
        if let Some(aggregate) = manifest.aggregate(query) {
            return self.view(aggregate, &arguments).await;
        }
        let arguments = Json::of(&arguments).map_err(|error| invalid_arguments(&error))?;
        let known = manifest.query(query);
        let known = known.ok_or_else(|| QueryError::NotDeployed(format!("query {query} of {service}")))?;
        let call = Call { inquiry: self.clone(), query: known.name.clone(), arguments, depth };
        match &manifest.read_model {
            None => call.outcome(call.run(&component, None).await.answer, None),
            Some(_) => self.on_read_model(depth, &component, move |live| call.read(live)).await,
        }
    }

    fn component(&self, service: &str) -> Result<Component, QueryError> {
        let deployed = self.inner.deps.registry.current();
        let component = deployed.service(service).cloned();
        component.ok_or_else(|| QueryError::NotDeployed(format!("service {service}")))
    }

    /// Answers with the view of one aggregate, as the log has it.
    async fn view(&self, aggregate: &Aggregate, arguments: &Value) -> Result<Answer, QueryError> {
        let ViewArguments { id } =
            ViewArguments::deserialize(arguments).map_err(|error| invalid_arguments(&error))?;
        let stream = StreamId::new(aggregate.name.as_str(), &id)?;
        let viewed = self.inner.deps.states.view(&stream, None).await?;
        let Viewed { component, version, view } = viewed.ok_or_else(|| Rejection::not_found(&stream))?;
        if let Some(readers) = &aggregate.readers {
            readers.check(&self.caller, &view)?;
        }
        let revision = Some(Revision::View { component, version });
        Ok(Answer { body: view, revision, position: self.reflects() })
    }

    /// Does `work` with a service's read model once it has the position, on a thread where SQLite may block.
    async fn on_read_model<T: Send + 'static>(
        &self,
        depth: usize,
        deployed: &Component,
        work: impl FnOnce(&LiveReadModel) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let Inner { deps: QueryDeps { projections, .. }, limits, places, shares } = &*self.inner;
        let service = &deployed.manifest().service;
        let caught_up = projections.wait(service.as_str(), self.at_least, self.patience.end()).await;
        caught_up.map_err(|behind| behind.of(service))?;
        let live = projections.live(deployed);
        let live = live.ok_or_else(|| unusable(service, Unusable::NotOpen))?;
        let place = async {
            let of_service = shares.get(depth)?.service(service).acquire_owned().await.ok()?;
            Some((of_service, places.get(depth)?.clone().acquire_owned().await.ok()?))
        };
        let place = timeout(limits.place, place).await.ok().flatten().ok_or(QueryError::Busy)?;
        let done = spawn_blocking(move || {
            let _place = place;
            work(&live)
        });
        done.await.unwrap_or_else(|error| Err(unusable(service, Unusable::BrokenOff(error))))
    }

    /// Returns a connection in a transaction that sees at least the position, and the revision of the content
    /// that the component reads there.
    fn begin_read(&self, live: &LiveReadModel) -> Result<(Guarded, Revision), QueryError> {
        let LiveReadModel { component, database } = live;
        let service = &component.manifest().service;
        let failed = |error: rusqlite::Error| unusable(service, error.into());
        let (connection, position) = database.begin_read().map_err(failed)?;
        let at_least = self.at_least.max(database.complete_at());
        let content = match position < at_least {
            // The database was recreated after the wait.
            true => Err(Behind { reached: position, at_least }.of(service)),
            false => database.content(&connection).map_err(failed),
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
            time_ms: self.inquiry.inner.deps.clock.now_ms(),
            caller: self.inquiry.caller.clone(),
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
    ) -> Result<Answer, QueryError> {
        Ok(Answer { body: answer??, revision, position: self.inquiry.reflects() })
    }

    /// Runs the call in one transaction, so that the rows that it reads, its revision and the position agree.
    /// Blocks while SQLite works.
    fn read(&self, live: &LiveReadModel) -> Result<Answer, QueryError> {
        let LiveReadModel { component, database } = live;
        let service = &component.manifest().service;
        if component.manifest().query(self.query.as_str()).is_none() {
            return Err(unusable(service, Unusable::NoSuchQuery(self.query.clone())));
        }
        let (connection, revision) = self.inquiry.begin_read(live)?;
        let session = ReadSession { connection };
        let answered = Handle::current().block_on(self.run(component, Some(session)));
        let Some(ReadSession { connection }) = answered.read_model else {
            return self.outcome(answered.answer, None);
        };
        let uncertain = answered.private
            || connection.used_moment()
            || self.inquiry.trace.composed.load(Ordering::Relaxed);
        let failure = connection.storage_error();
        database.end_read(connection);
        match (self.outcome(answered.answer, (!uncertain).then_some(revision)), failure) {
            (Err(QueryError::Fault(_)), Some(code)) => Err(unusable(service, Unusable::Statement(code))),
            (outcome, _) => outcome,
        }
    }
}

fn unusable(service: &ServiceName, reason: Unusable) -> QueryError {
    ReadModelError { service: service.clone(), reason }.into()
}

fn invalid_arguments(error: &dyn std::error::Error) -> Rejection {
    Rejection {
        code: "invalid-arguments".to_owned(),
        message: format!("The arguments cannot be read: {error}."),
        details: None,
    }
}
