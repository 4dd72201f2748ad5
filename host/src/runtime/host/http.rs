//! `wasi:http/outgoing-handler`: a component calls the origins that its manifest asks for and the operator
//! grants.
//!
//! A request is read to its end before anything is sent, and an answer before the component sees its head. So
//! an exchange has one time limit and two size limits, a request that is denied never breaks the pipe that
//! the component writes its body to, and a component that dies halfway through a body has sent nothing.

mod client;
mod failure;
mod policy;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::header::CONTENT_LENGTH;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{
    Error as WasiError, RequestOptions, WasiBody, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::contract::HttpOrigin;
use crate::model::CorrelationId;
use crate::runtime::instance_data::{Identity, InstanceData, service_name};

pub(crate) use client::grant_errors;
pub use client::{GrantError, HeaderError, HttpClient, Resolve, system_resolver};
pub use failure::{HttpFailure, HttpFailureKind};
pub(crate) use policy::grant_to_add;

/// A request of a component, with its absolute URL.
pub type HttpRequest = hyper::Request<Bytes>;
/// The answer to a request.
pub type HttpResponse = hyper::Response<Bytes>;

/// Sends the HTTP requests of components: the host's client, and the testkit's script.
#[async_trait]
pub trait Outgoing: Send + Sync {
    /// Sends a request of `service` and waits for the whole answer.
    async fn send(&self, service: &str, request: HttpRequest) -> Result<HttpResponse, HttpFailure>;
}

/// The limits of HTTP exchanges.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Time from the component's request to the last byte of the answer.
    pub time: Duration,
    /// Size of a request's body.
    pub request_bytes: usize,
    /// Size of a response's body.
    pub response_bytes: usize,
    /// Number of pending requests of one service.
    pub concurrency: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            // Half of a call's time limit, so that the component can still handle the failure.
            time: Duration::from_secs(5),
            // The default limit of a command's payload.
            request_bytes: 1 << 20,
            response_bytes: 1 << 20,
            // The default number of concurrent sagas, each of which waits for one step.
            concurrency: 256,
        }
    }
}

/// The HTTP permissions of a loaded component.
pub(crate) struct HttpAccess {
    /// The origins that its manifest asks for.
    pub(crate) origins: Vec<HttpOrigin>,
    slots: Arc<Semaphore>,
}

impl HttpAccess {
    pub(crate) fn new(origins: Vec<HttpOrigin>, limits: &HttpLimits) -> Self {
        Self { origins, slots: Arc::new(Semaphore::new(limits.concurrency)) }
    }
}

/// The way of a command's HTTP requests.
#[derive(Clone)]
pub(crate) struct HttpCall {
    pub(crate) outgoing: Arc<dyn Outgoing>,
    pub(crate) correlation_id: CorrelationId,
}

/// The HTTP requests of one instance.
pub(crate) struct HttpHooks {
    limits: HttpLimits,
    identity: Option<Arc<Identity>>,
    operation: &'static str,
    /// The id of the running call: for a command, the command's id.
    id: Arc<str>,
    call: Option<HttpCall>,
    /// Number of requests of the running call so far.
    sent: u64,
    /// Held by each request until it is answered.
    under_way: Arc<()>,
    /// True if a server has not answered a request of the running call, or only with its own failure.
    unanswered: Arc<AtomicBool>,
}

/// The permission to send a request.
struct Admitted {
    outgoing: Arc<dyn Outgoing>,
    _slot: OwnedSemaphorePermit,
}

impl HttpHooks {
    pub(crate) fn new(identity: Option<Arc<Identity>>, limits: HttpLimits) -> Self {
        Self {
            limits,
            identity,
            operation: "describe",
            id: Arc::default(),
            call: None,
            sent: 0,
            under_way: Arc::default(),
            unanswered: Arc::default(),
        }
    }

    /// Begins a call. `call`: `None` if it may not use HTTP.
    pub(crate) fn begin(&mut self, operation: &'static str, id: Arc<str>, call: Option<HttpCall>) {
        (self.operation, self.id, self.call, self.sent) = (operation, id, call, 0);
        // A request of the call before may still hold the old one.
        if self.is_unanswered() {
            self.unanswered = Arc::default();
        }
    }

    /// Returns whether a server has not answered a request of the running call, has failed itself, or is
    /// still to answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        !self.at_rest() || self.unanswered.load(Ordering::Relaxed)
    }

    /// Returns whether no request is pending.
    pub(crate) fn at_rest(&self) -> bool {
        Arc::strong_count(&self.under_way) == 1
    }

    /// Decides before the body is read: this call must be allowed to use HTTP, the manifest must ask for the
    /// origin, and the service must have a free slot.
    fn admit(&self, service: &str, request: &hyper::Request<WasiBody>) -> Result<Admitted, HttpFailure> {
        let (Some(identity), Some(call)) = (&self.identity, &self.call) else {
            return Err(policy::wrong_operation(service, self.operation));
        };
        policy::check_asked(service, &identity.http.origins, request.uri())?;
        let slot = identity.http.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| policy::too_many(service, self.limits.concurrency))?;
        Ok(Admitted { outgoing: call.outgoing.clone(), _slot: slot })
    }
}

impl WasiHttpView for InstanceData {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http, table: &mut self.table, ctx: &mut self.http_ctx }
    }
}

/// The rest of an exchange after its answer. Here there is none.
type Rest = Box<dyn Future<Output = Result<(), WasiError>> + Send>;
type Exchange = Box<dyn Future<Output = Result<(hyper::Response<WasiBody>, Rest), WasiError>> + Send>;

impl WasiHttpHooks for HttpHooks {
    /// The client sets the header from the URL.
    fn set_host_header(&mut self) -> bool {
        false
    }

    /// Ignores the component's own time limits: the host's is short.
    fn send_request(
        &mut self,
        mut request: hyper::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Rest,
    ) -> Exchange {
        let (service, id) = (service_name(self.identity.as_deref()), self.id.clone());
        if let Some(call) = &self.call {
            self.sent += 1;
            trace::set(request.headers_mut(), call.correlation_id.as_str(), &id, self.sent);
        }
        let admitted = self.admit(service.as_str(), &request);
        let (limits, under_way) = (self.limits, self.under_way.clone());
        let unanswered = self.unanswered.clone();
        Box::new(async move {
            let _under_way = under_way;
            let target = format!("{} {}", request.method(), policy::shown(request.uri()));
            let exchange =
                tokio::time::timeout(limits.time, exchange(service.as_str(), admitted, request, &limits));
            let answer = exchange.await;
            let answer =
                answer.unwrap_or_else(|_| Err(policy::too_slow(service.as_str(), &target, limits.time)));
            let failed = match &answer {
                Ok(response) => response.status().is_server_error(),
                Err(failure) => failure.kind.is_outage(),
            };
            unanswered.fetch_or(failed, Ordering::Relaxed);
            let answer = answer.map_err(|failure| {
                tracing::warn!(%service, call = &*id, "{failure}");
                WasiError::from(failure)
            })?;
            Ok((answer.map(|body| Full::new(body).map_err(WasiError::from).boxed_unsync()), done()))
        })
    }
}

fn done() -> Rest {
    Box::new(std::future::ready(Ok(())))
}

async fn exchange(
    service: &str,
    admitted: Result<Admitted, HttpFailure>,
    request: hyper::Request<WasiBody>,
    limits: &HttpLimits,
) -> Result<HttpResponse, HttpFailure> {
    let (mut head, body) = request.into_parts();
    let body = read(service, body, limits.request_bytes).await;
    let Admitted { outgoing, _slot } = admitted?;
    let body = body?;
    // The client sets the header itself. The component's value shows whether it has written the whole body.
    if head.headers.remove(CONTENT_LENGTH).is_some_and(|length| length != body.len().to_string()) {
        return Err(policy::incomplete(service, body.len()));
    }
    outgoing.send(service, hyper::Request::from_parts(head, body)).await
}

/// Reads a body to its end, and keeps at most `limit` bytes of it.
async fn read(service: &str, mut body: WasiBody, limit: usize) -> Result<Bytes, HttpFailure> {
    let mut whole = BytesMut::new();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| policy::incomplete(service, bytes))?;
        if let Some(data) = frame.data_ref() {
            bytes += data.len();
            if bytes <= limit {
                whole.extend_from_slice(data);
            }
        }
    }
    if bytes > limit { Err(policy::request_too_large(service, bytes, limit)) } else { Ok(whole.freeze()) }
}
