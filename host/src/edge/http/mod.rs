//! The HTTP edge: commands and queries on the routes of the manifests, and the host's own pages.
//!
//! A request is matched against the [`RouteTable`], answered by one of the files beside this one, and leaves with its
//! request id, its line in the log and its place in the metrics. Every error is a [`Problem`].

mod body;
mod builtin;
mod command;
mod dead_letters;
mod events;
mod openapi;
mod ops;
mod page;
mod parameters;
mod plugins;
mod projections;
mod query;
mod refusal;
mod sagas;
mod server;
mod streams;
mod upload;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use matchit::Params;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

pub use self::builtin::reserved_routes;
use self::builtin::{Builtin, HostAction, Operation, host_routes};
use super::metrics::RequestMetrics;
use super::{HostContext, headers, stopped};
use crate::contract::{Action, Found, Problem, RouteError, RouteTable, Schema};
use crate::deployed::Deployed;
use crate::model::CorrelationId;

pub use server::serve;

/// How requests that match no route are called in the log and in the metrics.
const UNMATCHED: &str = "unmatched";

/// What one client may ask for, so that none can exhaust the host.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// The largest body of a request. A command's payload is stored with its event, so a megabyte is a lot.
    pub body_bytes: usize,
    /// How long a body may take to arrive.
    pub body_read: Duration,
    /// How long the head of a request may take to arrive; also how long a connection may be idle. Longer than the
    /// minute after which proxies give up an idle connection, so that it is never the host that hangs up first.
    pub header_read: Duration,
    /// The longest `Prefer: wait`.
    pub wait: Duration,
    /// Clients that read `/events` at once.
    pub event_streams: usize,
    /// Open connections. More wait in the kernel's queue. About 20 KiB each, and one file descriptor.
    pub connections: usize,
    /// How long requests in flight may take to end at a shutdown.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            body_read: Duration::from_secs(30),
            header_read: Duration::from_secs(75),
            wait: Duration::from_secs(60),
            event_streams: 256,
            connections: 10_000,
            drain: Duration::from_secs(30),
        }
    }
}

/// The edge as it runs.
struct Site {
    edge: Arc<HostContext>,
    tables: ArcSwap<Tables>,
    /// Held by whoever makes new tables.
    remaking: Mutex<()>,
    event_streams: Arc<Semaphore>,
    /// True from the moment the host shuts down.
    stopping: watch::Receiver<bool>,
    unmatched: RequestMetrics,
}

/// The routes of one deployed set, with the metrics of each.
struct Routes {
    table: RouteTable<HostAction>,
    /// By the index of the endpoint.
    metrics: Vec<RequestMetrics>,
}

/// What is made of one deployed set.
struct Tables {
    deployed: Arc<Deployed>,
    routes: Arc<Routes>,
    /// Made when it is first asked for.
    openapi: OnceLock<openapi::Document>,
}

/// One request on a known route, apart from its body.
struct Call<'r> {
    headers: &'r HeaderMap,
    /// What stands after the question mark.
    query: Option<&'r str>,
    placeholders: Params<'r, 'r>,
    request_id: CorrelationId,
}

impl Site {
    fn new(edge: Arc<HostContext>, stopping: watch::Receiver<bool>) -> Result<Self, RouteError> {
        let deployed = edge.registry.current();
        let routes = Arc::new(routes_of(&deployed)?);
        Ok(Self {
            tables: ArcSwap::from_pointee(Tables { deployed, routes, openapi: OnceLock::new() }),
            remaking: Mutex::new(()),
            event_streams: Arc::new(Semaphore::new(edge.limits.event_streams)),
            edge,
            stopping,
            unmatched: RequestMetrics::of_route(UNMATCHED, "any"),
        })
    }

    /// The tables of the set that is deployed now.
    fn tables(&self) -> Arc<Tables> {
        let deployed = self.edge.registry.current();
        let tables = self.tables.load_full();
        if Arc::ptr_eq(&tables.deployed, &deployed) { tables } else { self.remake(deployed) }
    }

    /// A set whose routes do not go together is stopped by the gates of a deployment; should one come through, the
    /// routes of the set before it stay, which is better than none.
    fn remake(&self, deployed: Arc<Deployed>) -> Arc<Tables> {
        let _alone = self.remaking.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.tables.load_full();
        if Arc::ptr_eq(&before.deployed, &deployed) {
            return before;
        }
        let routes = routes_of(&deployed).map(Arc::new).unwrap_or_else(|error| {
            tracing::error!(%error, "the routes of the deployed services do not go together; the old ones stay");
            before.routes.clone()
        });
        let tables = Arc::new(Tables { deployed, routes, openapi: OnceLock::new() });
        self.tables.store(tables.clone());
        tables
    }

    /// Resolves when the host shuts down.
    fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        stopped(self.stopping.clone())
    }

    /// Answers one request, whatever happens.
    async fn answer(&self, request: Request) -> Response {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let mut body = body.into_data_stream();
        let tables = self.tables();
        let request_id = headers::correlation_id(&parts.headers, headers::IDEMPOTENCY_KEY);
        let found = tables.routes.table.find(&parts.method, parts.uri.path());
        let (route, metrics) = match &found {
            Found::Endpoint(endpoint, _) => (endpoint.path.as_str(), &tables.routes.metrics[endpoint.index]),
            Found::OtherMethod(_) | Found::Nothing => (UNMATCHED, &self.unmatched),
        };
        let work = self.carry_out(&tables, found, &parts, request_id.clone(), &mut body);
        let outcome = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            tracing::error!(route, %request_id, panic = message, "the answer to a request panicked");
            Err(Problem::internal())
        });
        if outcome.is_err() {
            body::discard(&parts.headers, &mut body).await;
        }
        let problem = outcome.as_ref().err();
        if let Some(problem) = problem.filter(|problem| problem.is_to_be_logged()) {
            tracing::error!(route, %request_id, code = problem.code(), "request failed: {}", problem.log_text());
        }
        let mut response = outcome.into_response();
        if let Ok(id) = HeaderValue::try_from(request_id.as_str()) {
            response.headers_mut().insert(headers::REQUEST_ID, id);
        }
        let (took, status) = (started.elapsed(), response.status());
        metrics.record(status.as_u16(), took);
        let duration_ms = took.as_secs_f64() * 1e3;
        tracing::debug!(method = %parts.method, route, status = status.as_u16(), duration_ms, %request_id, "request");
        response
    }

    async fn carry_out(
        &self,
        tables: &Tables,
        found: Found<'_, '_, HostAction>,
        parts: &Parts,
        request_id: CorrelationId,
        body: &mut BodyDataStream,
    ) -> Result<Response, Problem> {
        let (endpoint, placeholders) = match found {
            Found::Endpoint(endpoint, placeholders) => (endpoint, placeholders),
            Found::OtherMethod(allow) => return Err(Problem::method_not_allowed(allow.clone())),
            Found::Nothing => {
                let detail = "There is nothing at this path. GET /openapi.json lists what there is.";
                return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-route", detail));
            }
        };
        let call = Call { headers: &parts.headers, query: parts.uri.query(), placeholders, request_id };
        match &endpoint.action {
            Action::Command(route) => command::answer(self, route, &call, body).await,
            Action::Query(route) => query::answer(self, route, &call).await,
            Action::Host(HostAction::Builtin(builtin)) => self.builtin(*builtin, tables, &call).await,
            Action::Host(HostAction::Act(act, schema)) => sagas::act(self, *act, schema, &call, body).await,
            Action::Host(HostAction::Operate(operation, schema)) => {
                self.operate(*operation, schema, &call, body).await
            }
            Action::Host(HostAction::Deploy) => plugins::deploy(self, &call, body).await,
            Action::Host(HostAction::Undeploy) => plugins::undeploy(self, &call).await,
        }
    }

    async fn operate(
        &self,
        operation: Operation,
        schema: &Schema,
        call: &Call<'_>,
        body: &mut BodyDataStream,
    ) -> Result<Response, Problem> {
        match operation {
            Operation::Redrive => projections::redrive(self, schema, call, body).await,
            Operation::Replay => projections::replay(self, schema, call, body).await,
            Operation::RedriveMessages => dead_letters::redrive(self, schema, call, body).await,
            Operation::DiscardMessages => dead_letters::discard(self, schema, call, body).await,
            Operation::RollBack => plugins::roll_back(self, schema, call, body).await,
        }
    }

    async fn builtin(&self, builtin: Builtin, tables: &Tables, call: &Call<'_>) -> Result<Response, Problem> {
        match builtin {
            Builtin::Page => Ok(ops::page()),
            Builtin::OpenApi => openapi::answer(tables, call),
            Builtin::Events => events::answer(self, call).await,
            Builtin::Stream => streams::answer(self, call).await,
            Builtin::Saga => sagas::status(self, call).await,
            Builtin::Health => Ok(ops::health()),
            Builtin::Ready => ops::ready(self),
            Builtin::Cluster => ops::nodes(self),
            Builtin::Metrics => ops::metrics(self).await,
            Builtin::Plugins => plugins::list(self, tables),
            Builtin::PluginHistory => plugins::history(self, call).await,
            Builtin::Sagas => sagas::list(self, call).await,
            Builtin::SagaTimeline => sagas::timeline(self, call).await,
            Builtin::Projections => projections::list(self).await,
            Builtin::Projection => projections::show(self, call).await,
            Builtin::DeadLetters => dead_letters::list(self, call).await,
        }
    }
}

impl Call<'_> {
    /// What stands in the path for a placeholder.
    fn placeholder(&self, name: &str) -> Result<Cow<'_, str>, Problem> {
        let raw = self.placeholders.get(name).unwrap_or_default();
        let decoded = percent_decode_str(raw).decode_utf8();
        decoded.map_err(|_| Problem::invalid_parameter(format!("{name} is not UTF-8.")))
    }
}

fn routes_of(deployed: &Deployed) -> Result<Routes, RouteError> {
    let host = host_routes().map_err(RouteError::of_host)?;
    let table = RouteTable::new(host, deployed.services().map(|service| &**service.manifest()))?;
    let metrics = table.endpoints().iter();
    let metrics = metrics.map(|(path, method)| RequestMetrics::of_route(path, method.as_str())).collect();
    Ok(Routes { table, metrics })
}

/// A reply with a JSON body.
fn json(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(%error, "a reply cannot be written as JSON");
        Problem::internal()
    })?;
    Ok(json_text(status, body))
}

/// A reply whose body is JSON already.
fn json_text(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
