//! The host's client: sends what is granted, to addresses that have been checked, with the headers that are secret.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::{
    HttpFailure, HttpFailureKind, HttpLimits, HttpOrigin, HttpRequest, HttpResponse, Outgoing, policy,
};
use crate::config::{Grants, HttpGrant, SecretError, SecretSource};

/// How long a connection is kept for the next request. Servers commonly close theirs after a minute or more.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Idle connections kept to one origin: a steady load reuses them, a burst opens more and lets them go again.
const MAX_IDLE: usize = 32;

/// From a name to the addresses that it stands for.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// What the machine's resolver says.
pub fn system_resolver() -> Resolve {
    Arc::new(|name| {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    })
}

/// Sends for components what the operator grants. The default grants nothing.
#[derive(Default)]
pub struct HttpClient {
    /// By service and origin.
    services: HashMap<String, HashMap<HttpOrigin, Granted>>,
    response_bytes: usize,
}

/// A grant and its connections. No two grants share any: what one may reach, another may not.
struct Granted {
    service: Arc<str>,
    grant: Arc<HttpGrant>,
    headers: Vec<(HeaderName, HeaderValue)>,
    client: Client<HttpsConnector<HttpConnector<CheckedResolver>>, Full<Bytes>>,
}

/// Why the grants cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    #[error("[[grants.{service}.http]] has the origin {origin} twice: put its methods into one entry")]
    Twice { service: String, origin: HttpOrigin },
    #[error("the header {header} for {origin} under [[grants.{service}.http]] cannot be set")]
    Header { service: String, origin: HttpOrigin, header: String, source: HeaderError },
}

/// Why a header cannot be set. Its value is not shown.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("this is no name of a header")]
    Name(#[from] InvalidHeaderName),
    #[error("its value cannot stand in a header")]
    Value(#[from] InvalidHeaderValue),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl HttpClient {
    /// Reads the secrets. `grants`: by service.
    pub fn new(
        grants: &BTreeMap<String, Grants>,
        limits: &HttpLimits,
        resolve: &Resolve,
    ) -> Result<Self, GrantError> {
        let mut services = HashMap::new();
        for (service, grants) in grants {
            let mut origins = HashMap::new();
            for grant in &grants.http {
                let granted = Granted::new(service, grant, resolve)?;
                if origins.insert(grant.origin.clone(), granted).is_some() {
                    let (service, origin) = (service.clone(), grant.origin.clone());
                    return Err(GrantError::Twice { service, origin });
                }
            }
            services.insert(service.clone(), origins);
        }
        Ok(Self { services, response_bytes: limits.response_bytes })
    }

    /// Whether the service is granted all origins that it asks for; the error says what is to be added to the configuration.
    pub fn check(&self, service: &str, asked: &[HttpOrigin]) -> Result<(), String> {
        match asked.iter().find(|origin| self.granted(service, origin).is_none()) {
            None => Ok(()),
            Some(origin) => {
                Err(format!("{origin}, which is not granted: {}", policy::grant_to_add(service, origin, "…")))
            }
        }
    }

    fn granted(&self, service: &str, origin: &HttpOrigin) -> Option<&Granted> {
        self.services.get(service)?.get(origin)
    }
}

#[async_trait]
impl Outgoing for HttpClient {
    async fn send(&self, service: &str, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        let origin = HttpOrigin::of(request.uri()).ok_or_else(|| {
            HttpFailure::new(HttpFailureKind::Denied, format!("{service} called a URL that is none"))
        })?;
        let granted = self.granted(service, &origin);
        let granted = granted.ok_or_else(|| policy::not_granted(service, &origin, request.method()))?;
        policy::check_method(service, &granted.grant, request.method())?;
        granted.send(request, self.response_bytes).await
    }
}

impl Granted {
    fn new(service: &str, grant: &HttpGrant, resolve: &Resolve) -> Result<Self, GrantError> {
        let headers = grant.headers.iter().map(|(header, secret)| {
            secret_header(header, secret).map_err(|source| GrantError::Header {
                service: service.to_owned(),
                origin: grant.origin.clone(),
                header: header.clone(),
                source,
            })
        });
        let headers = headers.collect::<Result<_, _>>()?;
        let (service, grant) = (Arc::from(service), Arc::new(grant.clone()));
        let resolver =
            CheckedResolver { service: Arc::clone(&service), grant: grant.clone(), resolve: resolve.clone() };
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_ALIVE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Ok(Self { service, grant, headers, client })
    }

    /// Follows no redirect: the answer goes to the component as it is.
    async fn send(&self, mut request: HttpRequest, limit: usize) -> Result<HttpResponse, HttpFailure> {
        let (service, origin) = (&*self.service, &self.grant.origin);
        // The connector asks no resolver for an address in the place of a name.
        if let Some(address) = origin.literal() {
            policy::check_addresses(service, &self.grant, &[address])?;
        }
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let response = self
            .client
            .request(request.map(Full::new))
            .await
            .map_err(|error| self.failure(&error, error.is_connect()))?;
        let (head, body) = response.into_parts();
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(HttpResponse::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(policy::response_too_large(service, origin, limit))
            }
            Err(error) => Err(self.failure(&*error, false)),
        }
    }

    /// `connecting`: nothing has been sent yet.
    fn failure(&self, error: &(dyn Error + 'static), connecting: bool) -> HttpFailure {
        let causes: Vec<_> = std::iter::successors(Some(error), |&error| error.source()).collect();
        if let Some(refused) = causes.iter().find_map(|cause| cause.downcast_ref::<HttpFailure>()) {
            return refused.clone();
        }
        let kind = if connecting { HttpFailureKind::Unreachable } else { HttpFailureKind::BrokenOff };
        let told: Vec<_> = causes.iter().map(ToString::to_string).collect();
        let sentence =
            format!("{} has no answer from {}: {}", self.service, self.grant.origin, told.join(": "));
        HttpFailure::new(kind, sentence)
    }
}

fn secret_header(name: &str, secret: &SecretSource) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let name = HeaderName::from_bytes(name.as_bytes())?;
    let mut value = HeaderValue::from_str(secret.read()?.reveal())?;
    // It shows as `Sensitive` from here on.
    value.set_sensitive(true);
    Ok((name, value))
}

/// Gives the connector the addresses that it may connect to: those that have been checked, so that a name cannot stand for
/// another address between the check and the connection.
#[derive(Clone)]
struct CheckedResolver {
    service: Arc<str>,
    grant: Arc<HttpGrant>,
    resolve: Resolve,
}

impl Service<Name> for CheckedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = HttpFailure;
    type Future = BoxFuture<'static, Result<Self::Response, HttpFailure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { service, grant, resolve } = self.clone();
        Box::pin(async move {
            let addresses = resolve(name.as_str().to_owned()).await;
            let addresses =
                addresses.map_err(|error| policy::no_address(&service, &grant.origin, &error.to_string()))?;
            policy::check_addresses(&service, &grant, &addresses)?;
            // The connector puts the URL's port in the place of 0.
            let sockets: Vec<_> = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(sockets.into_iter())
        })
    }
}
