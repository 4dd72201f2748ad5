//! `wasi:http/outgoing-handler`: a component calls the world outside, as far as its manifest asks for it and the operator
//! grants it.
//!
//! A request is read to its end before anything is sent, and an answer before the component sees its head. So an exchange
//! has one time limit and two sizes, a request that is refused never breaks the pipe that the component writes its body
//! to, and a component that dies halfway through a body has sent nothing.

mod client;
mod failure;
mod policy;
mod trace;

use std::sync::Arc;
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
use crate::runtime::guest::{Identity, InstanceData, service_name};

pub use client::{GrantError, HeaderError, HttpClient, Resolve, system_resolver};
pub use failure::{HttpFailure, HttpFailureKind};
pub(crate) use policy::grant_to_add;

/// A request of a component, with its absolute URL.
pub type HttpRequest = hyper::Request<Bytes>;
pub type HttpResponse = hyper::Response<Bytes>;

/// Sends what components may send: the host's client, and the testkit's script.
#[async_trait]
pub trait Outgoing: Send + Sync {
    async fn send(&self, service: &str, request: HttpRequest) -> Result<HttpResponse, HttpFailure>;
}

/// What one exchange may take, and how many a service may have.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// From the component's request to the last byte of the answer.
    pub time: Duration,
    /// Of a request's body.
    pub request_bytes: usize,
    /// Of a response's body.
    pub response_bytes: usize,
    /// Requests of one service under way at once.
    pub concurrency: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            // Half of what a call may wait, so that the component can still say what it makes of the failure.
            time: Duration::from_secs(5),
            // What the edge takes as a payload.
            request_bytes: 1 << 20,
            response_bytes: 1 << 20,
            // As many as sagas run at once by default, each of which waits for one step.
            concurrency: 256,
        }
    }
}

/// What a loaded component may ask for over HTTP.
pub(crate) struct HttpAccess {
    /// What its manifest asks for.
    pub(crate) origins: Vec<HttpOrigin>,
    slots: Arc<Semaphore>,
}

impl HttpAccess {
    pub(crate) fn new(origins: Vec<HttpOrigin>, limits: &HttpLimits) -> Self {
        Self { origins, slots: Arc::new(Semaphore::new(limits.concurrency)) }
    }
}

/// A command's way out.
pub(crate) struct HttpCall {
    pub(crate) outgoing: Arc<dyn Outgoing>,
    pub(crate) correlation_id: CorrelationId,
}

/// An instance's side of HTTP: what becomes of the requests that it makes.
pub(crate) struct HttpHooks {
    limits: HttpLimits,
    identity: Option<Arc<Identity>>,
    operation: &'static str,
    /// Of the running call: for a command its id.
    id: Arc<str>,
    call: Option<HttpCall>,
    /// Requests of the running call so far.
    sent: u64,
    /// Held by each request until it is answered.
    under_way: Arc<()>,
}

/// What a request needs to be sent.
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
        }
    }

    /// Begins a call. None: it may not use HTTP.
    pub(crate) fn begin(&mut self, operation: &'static str, id: Arc<str>, call: Option<HttpCall>) {
        (self.operation, self.id, self.call, self.sent) = (operation, id, call, 0);
    }

    /// Whether no request of an earlier call is under way.
    pub(crate) fn at_rest(&self) -> bool {
        Arc::strong_count(&self.under_way) == 1
    }

    /// What is decided before the body is read: whether this call may use HTTP, whether the manifest asks for it, and
    /// whether there is room.
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

/// The end of an exchange that goes on after the answer: here never.
type Rest = Box<dyn Future<Output = Result<(), WasiError>> + Send>;
type Exchange = Box<dyn Future<Output = Result<(hyper::Response<WasiBody>, Rest), WasiError>> + Send>;

impl WasiHttpHooks for HttpHooks {
    /// The client sets the header from the URL.
    fn set_host_header(&mut self) -> bool {
        false
    }

    /// The component's own time limits are not looked at: the host's is short.
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
        Box::new(async move {
            let _under_way = under_way;
            let target = format!("{} {}", request.method(), policy::shown(request.uri()));
            let exchange =
                tokio::time::timeout(limits.time, exchange(service.as_str(), admitted, request, &limits));
            let answer = exchange.await;
            let answer =
                answer.unwrap_or_else(|_| Err(policy::too_slow(service.as_str(), &target, limits.time)));
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
    // The client says itself how long the body is. What the component says tells whether it has written all of it.
    if head.headers.remove(CONTENT_LENGTH).is_some_and(|length| length != body.len().to_string()) {
        return Err(policy::incomplete(service, body.len()));
    }
    outgoing.send(service, hyper::Request::from_parts(head, body)).await
}

/// Reads a body to its end, and keeps no more of it than it may have.
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
