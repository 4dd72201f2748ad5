//! The HTTP edge: commands and queries on the routes of the manifests, and the host's own routes.
//!
//! A request is matched against the [`RouteTable`] and answered by one of the files beside this one. Each
//! response has a request id, a line in the log and a count in the metrics. Every error is a `Problem`.

mod audit;
mod body;
mod command;
mod dead_letters;
mod event_pages;
mod events;
mod gc;
mod header_docs;
mod host_routes;
mod listen;
mod open_files;
mod openapi;
mod ops;
mod parameters;
mod peer;
mod perimeter;
mod plain;
mod plugins;
mod problems;
mod projections;
mod query;
#[cfg(test)]
mod reference;
mod refusal;
mod route;
mod sagas;
mod schemas;
mod server;
mod sign_in;
mod streams;
mod tls;
mod tokens;
mod upload;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use matchit::Params;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument as _;

use self::host_routes::RouteSet;
pub use self::host_routes::reserved_routes;
pub use self::listen::{AdminOptions, ListenError, ListenOptions, Listeners};
pub(super) use self::open_files::OpenFiles;
use self::peer::Peer;
pub use self::perimeter::{HostName, HttpOptions, NoHostName};
use self::route::{Head, HostRoute, decode_placeholder};
pub use self::server::serve;
pub(crate) use self::tls::PemErrors;
pub use self::tls::{TlsError, TlsFiles};
use super::log_rate::FAILED;
use super::metrics::RequestMetrics;
use super::{HostContext, denied, headers, stopped};
use crate::clock::Stopwatch;
use crate::contract::{Access, Action, Found, Problem, ProblemCode, RouteError, RouteTable};
use crate::deployed::Deployed;
use crate::error::Chain;
use crate::identity::Evidence;
use crate::model::{Actor, Caller, CorrelationId};
use crate::query::AtLeast;

/// The name of requests without a route in the log and in the metrics.
const UNMATCHED: &str = "unmatched";

/// The limits of one client, so that none can exhaust the host.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Maximum size of a request's body. A command's payload is stored with its event, so a megabyte is a
    /// lot.
    pub body_bytes: usize,
    /// Maximum time for a body to arrive.
    pub body_read: Duration,
    /// Maximum time for the head of a request to arrive, and for a connection to be idle. Longer than the
    /// minute after which proxies close an idle connection, so that the host never closes it first.
    pub header_read: Duration,
    /// Maximum time for which a client reads nothing of its reply. Then the connection is closed.
    pub write: Duration,
    /// The longest `Prefer: wait`.
    pub wait: Duration,
    /// Maximum number of clients that read `/events` at the same time.
    pub event_streams: usize,
    /// Maximum number of open connections. Others wait in the kernel's queue. About 20 KiB each, and one file
    /// descriptor.
    pub connections: usize,
    /// Maximum time for requests in flight to end at a shutdown.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            body_read: Duration::from_secs(30),
            header_read: Duration::from_secs(75),
            write: Duration::from_secs(60),
            wait: Duration::from_secs(60),
            event_streams: 256,
            connections: 10_000,
            drain: Duration::from_secs(30),
        }
    }
}

/// The answers of one host to the clients of a listener.
struct HttpServer {
    host: Arc<HostContext>,
    /// The host's own routes that are answered.
    routes: RouteSet,
    tables: ArcSwap<Tables>,
    /// Held while new tables are built.
    rebuilding: Mutex<()>,
    event_streams: Arc<Semaphore>,
    /// True from the moment the host shuts down.
    stopping: watch::Receiver<bool>,
    unmatched: RequestMetrics,
}

/// The routes of one deployed set, with the metrics of each.
struct Routes {
    table: RouteTable<&'static HostRoute>,
    /// By the index of the endpoint.
    metrics: Vec<RequestMetrics>,
}

/// Everything that the server derives from one deployed set.
struct Tables {
    deployed: Arc<Deployed>,
    routes: Arc<Routes>,
    /// Built at the first request for it.
    openapi: OnceLock<openapi::Document>,
}

/// One request on a known route, apart from its body.
struct Call<'r> {
    headers: &'r HeaderMap,
    /// The text behind the question mark.
    query: Option<&'r str>,
    placeholders: Params<'r, 'r>,
    request_id: CorrelationId,
    caller: Caller,
}

impl HttpServer {
    fn new(
        host: Arc<HostContext>,
        routes: RouteSet,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, RouteError> {
        let deployed = host.registry.current();
        let table = Arc::new(routes_of(routes, &deployed)?);
        Ok(Self {
            tables: ArcSwap::from_pointee(Tables { deployed, routes: table, openapi: OnceLock::new() }),
            routes,
            rebuilding: Mutex::new(()),
            event_streams: Arc::new(Semaphore::new(host.limits.event_streams)),
            host,
            stopping,
            unmatched: RequestMetrics::of_route(UNMATCHED, "any"),
        })
    }

    /// Returns the tables of the set that is deployed now.
    fn tables(&self) -> Arc<Tables> {
        let deployed = self.host.registry.current();
        let tables = self.tables.load_full();
        if Arc::ptr_eq(&tables.deployed, &deployed) { tables } else { self.rebuild(deployed) }
    }

    /// Builds the tables of a new set. The gates of a deployment refuse services whose routes conflict; if
    /// such a set gets here all the same, the routes before it stay, which is better than none.
    fn rebuild(&self, deployed: Arc<Deployed>) -> Arc<Tables> {
        let _guard = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.tables.load_full();
        if Arc::ptr_eq(&before.deployed, &deployed) {
            return before;
        }
        let routes = routes_of(self.routes, &deployed).map(Arc::new).unwrap_or_else(|error| {
            tracing::error!(error = %Chain(&error), "the deployed routes conflict; the old ones stay");
            before.routes.clone()
        });
        let tables = Arc::new(Tables { deployed, routes, openapi: OnceLock::new() });
        self.tables.store(tables.clone());
        tables
    }

    /// Reads the position that the reply must reflect at least, and how long the client waits for it.
    fn at_least(&self, headers: &HeaderMap) -> Result<AtLeast, Problem> {
        headers::at_least(headers, self.host.limits.wait, &self.stopping)
    }

    /// Resolves when the host shuts down.
    fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        stopped(self.stopping.clone())
    }

    /// Answers one request. A panic is answered as an internal problem.
    async fn answer(self: &Arc<Self>, request: Request, peer: Peer) -> Response {
        let started = Stopwatch::start();
        let (parts, body) = request.into_parts();
        let client = self.host.perimeter.admit(&parts, peer);
        let mut body = body.into_data_stream();
        let tables = self.tables();
        let request_id = headers::correlation_id(&parts.headers, headers::IDEMPOTENCY_KEY);
        let found = match client {
            Ok(_) => tables.routes.table.find(&parts.method, parts.uri.path()),
            // A page of another origin does not learn which routes there are.
            Err(_) => Found::Nothing,
        };
        let (route, metrics) = match &found {
            Found::Endpoint(endpoint, _) => (endpoint.path.as_str(), &tables.routes.metrics[endpoint.index]),
            Found::OtherMethod(_) | Found::Nothing => (UNMATCHED, &self.unmatched),
        };
        let span = tracing::info_span!("request", id = %request_id, route);
        let work = async {
            self.route_request(&tables, found, &parts, &client?, request_id.clone(), &mut body).await
        };
        let outcome = AssertUnwindSafe(work.instrument(span)).catch_unwind().await.unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            tracing::error!(route, %request_id, panic = message, "a handler panicked; answered with 500");
            Err(Problem::internal())
        });
        if outcome.is_err() {
            body::discard(&parts.headers, &mut body).await;
        }
        let problem = outcome.as_ref().err();
        if let Some(problem) = problem.filter(|problem| problem.is_to_be_logged())
            && let Some(left_out) = FAILED.admit()
        {
            let (code, text) = (problem.code(), problem.log_text());
            tracing::error!(route, %request_id, code, left_out, "request failed: {text}");
        }
        let mut response = outcome.into_response();
        if let Ok(id) = HeaderValue::try_from(request_id.as_str()) {
            response.headers_mut().insert(headers::REQUEST_ID, id);
        }
        let (took, status) = (started.elapsed(), response.status());
        metrics.record(status.as_u16(), took);
        let duration_ms = took.as_secs_f64() * 1e3;
        let (method, status) = (&parts.method, status.as_u16());
        tracing::debug!(%method, route, status, duration_ms, %request_id, "request");
        response
    }

    /// Returns the caller of a request. An address with many failed sign-ins has to wait.
    async fn caller(&self, parts: &Parts, client: &Peer) -> Result<Caller, Problem> {
        let authorization = headers::authorization(&parts.headers)?;
        if authorization.is_some() {
            self.host.callers.check_sign_in(client.address)?;
        }
        let evidence = Evidence {
            authorization,
            cookies: headers::cookies(&parts.headers),
            csrf: parts.headers.get(headers::CSRF).and_then(|value| value.to_str().ok()),
            has_effect: !parts.method.is_safe(),
            peer: client.proven.as_deref(),
        };
        let identified = self.host.identity.caller(evidence).await;
        if authorization.is_some() && identified.is_err() {
            self.host.callers.note_failed_sign_in(client.address);
        }
        let on_behalf_of = headers::actor(&parts.headers)?.map(Actor::from);
        Ok(Caller { on_behalf_of, ..identified? })
    }

    /// Returns the caller of a request if it may use the route now. A denied one is counted and logged.
    async fn admit(&self, parts: &Parts, client: &Peer, access: &Access) -> Result<Caller, Problem> {
        let note = |problem: Problem, subject: Option<&Actor>| {
            let request = format_args!("{} {}", parts.method, parts.uri.path());
            denied::note(problem, || client.sender(subject), request)
        };
        let caller = self.caller(parts, client).await.map_err(|problem| note(problem, None))?;
        let subject = caller.subject.as_ref();
        let admitted = access.check(&caller).map_err(Problem::from);
        let admitted = admitted.and_then(|()| match parts.method.is_safe() {
            true => Ok(()),
            false => self.host.callers.take_command(client.sender(subject)),
        });
        admitted.map_err(|problem| note(problem, subject))?;
        Ok(caller)
    }

    /// Hands a request to the command, the query or the handler of its route.
    async fn route_request(
        self: &Arc<Self>,
        tables: &Arc<Tables>,
        found: Found<'_, '_, &'static HostRoute>,
        parts: &Parts,
        client: &Peer,
        request_id: CorrelationId,
        body: &mut BodyDataStream,
    ) -> Result<Response, Problem> {
        let (endpoint, placeholders) = match found {
            Found::Endpoint(endpoint, placeholders) => (endpoint, placeholders),
            Found::OtherMethod(allow) => return Err(Problem::method_not_allowed(allow.clone())),
            Found::Nothing => {
                let detail = "No route has this path. GET /openapi.json lists all routes.";
                return Err(Problem::new(ProblemCode::UnknownRoute, detail));
            }
        };
        let access = match &endpoint.action {
            Action::Command(route) => &route.access,
            Action::Query(route) => &route.access,
            Action::Host(route) => &route.access,
        };
        let caller = self.admit(parts, client, access).await?;
        let (headers, query) = (&parts.headers, parts.uri.query());
        let call = Call { headers, query, placeholders, request_id, caller };
        match &endpoint.action {
            Action::Command(route) => command::answer(self, route, &call, body).await,
            // In a box: a command moves the room of all alternatives.
            Action::Query(route) => query::answer(self, route, &call).boxed().await,
            Action::Host(route) => route.answer(call.head(self, tables), body).await,
        }
    }
}

impl Call<'_> {
    /// Returns the text of a placeholder of the path.
    fn placeholder(&self, name: &str) -> Result<Cow<'_, str>, Problem> {
        decode_placeholder(name, self.placeholders.get(name).unwrap_or_default())
    }

    /// Returns the request as the handlers of the host's own routes get it.
    fn head(&self, server: &Arc<HttpServer>, tables: &Arc<Tables>) -> Head {
        let placeholders = self.placeholders.iter();
        Head {
            server: server.clone(),
            tables: tables.clone(),
            caller: self.caller.clone(),
            headers: self.headers.clone(),
            query: self.query.map(str::to_owned),
            placeholders: placeholders.map(|(name, text)| (name.to_owned(), text.to_owned())).collect(),
        }
    }
}

fn routes_of(routes: RouteSet, deployed: &Deployed) -> Result<Routes, RouteError> {
    let host = routes.reserved().map_err(RouteError::of_host)?;
    let table = RouteTable::new(host, deployed.services().map(|service| &**service.manifest()))?;
    let metrics = table.endpoints().iter();
    let metrics = metrics.map(|(path, method)| RequestMetrics::of_route(path, method.as_str())).collect();
    Ok(Routes { table, metrics })
}

/// Returns a response with a JSON body.
fn json_reply(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(error = %Chain(&error), "failed to write a reply as JSON; it is answered with 500");
        Problem::internal()
    })?;
    Ok(json_text(status, body))
}

/// Returns a response whose body is JSON text already.
fn json_text(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
