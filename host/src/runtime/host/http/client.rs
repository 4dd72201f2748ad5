//! The host's HTTP client. It sends requests that are granted, to addresses that have been checked, with
//! secret headers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
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

use super::{HttpFailure, HttpFailureKind, HttpLimits, HttpRequest, HttpResponse, Outgoing, policy};
use crate::contract::{Grants, HttpGrant, HttpOrigin, SecretError, SecretSource};
use crate::error::Chain;
use crate::model::ServiceName;

/// The time that an idle connection is kept. Servers commonly close theirs after a minute or more.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Maximum number of idle connections to one origin. A steady load reuses them; the extra ones of a burst are
/// closed.
const MAX_IDLE: usize = 32;

/// Resolves a name to its addresses.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Returns the machine's resolver.
pub fn system_resolver() -> Resolve {
    Arc::new(|name| {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    })
}

/// Sends the requests of components that the operator grants. The default grants none.
pub struct HttpClient {
    /// The grants of the configuration.
    configured: Origins,
    /// The grants of the current deployments, and of those before the last change: running calls end on
    /// these.
    deployed: ArcSwap<[Arc<Origins>; 2]>,
    resolve: Resolve,
    response_bytes: usize,
}

/// Grants by service and origin.
type Origins = HashMap<ServiceName, HashMap<HttpOrigin, Arc<Granted>>>;

/// A grant and its connections. Grants share no connections, because one may reach addresses that another may
/// not.
struct Granted {
    service: ServiceName,
    grant: Arc<HttpGrant>,
    headers: Vec<(HeaderName, HeaderValue)>,
    client: Client<HttpsConnector<HttpConnector<CheckedResolver>>, Full<Bytes>>,
}

/// The reason why the configured grants cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// An origin is granted twice.
    #[error("[[grants.{service}.http]] has the origin {origin} twice: put its methods into one entry")]
    Twice {
        /// The service's name.
        service: String,
        /// The origin.
        origin: HttpOrigin,
    },
    /// A header cannot be set.
    #[error("the header {header} for {origin} under [[grants.{service}.http]] cannot be set")]
    Header {
        /// The service's name.
        service: String,
        /// The origin.
        origin: HttpOrigin,
        /// The header's name.
        header: String,
        /// The reason.
        source: HeaderError,
    },
}

/// The reason why a header cannot be set. Its value is not shown.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The name is no header's.
    #[error("this is no name of a header")]
    Name(#[from] InvalidHeaderName),
    /// The value has bytes that no header may have.
    #[error("its value cannot stand in a header")]
    Value(#[from] InvalidHeaderValue),
    /// The secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl GrantError {
    /// Returns the service that the grant is for.
    pub(crate) fn service(&self) -> &str {
        match self {
            Self::Twice { service, .. } | Self::Header { service, .. } => service,
        }
    }
}

/// Returns everything that is wrong with the grants of the configuration, by service. Reads the secrets of
/// their headers.
pub(crate) fn grant_errors(grants: &BTreeMap<String, Grants>) -> Vec<GrantError> {
    let mut errors = Vec::new();
    for (service, grants) in grants {
        let mut origins = HashSet::new();
        for grant in &grants.http {
            errors.extend(secret_headers(service, grant).err());
            if !origins.insert(&grant.origin) {
                errors.push(GrantError::Twice { service: service.clone(), origin: grant.origin.clone() });
            }
        }
    }
    errors
}

impl Default for HttpClient {
    fn default() -> Self {
        Self {
            configured: Origins::new(),
            deployed: ArcSwap::default(),
            resolve: system_resolver(),
            response_bytes: HttpLimits::default().response_bytes,
        }
    }
}

impl HttpClient {
    /// Creates a client, and reads the secrets of its headers. `grants`: by service.
    pub fn new(
        grants: &BTreeMap<String, Grants>,
        limits: &HttpLimits,
        resolve: &Resolve,
    ) -> Result<Self, GrantError> {
        let mut configured = Origins::new();
        for (service, grants) in grants {
            let mut origins = HashMap::new();
            for grant in &grants.http {
                let headers = secret_headers(service, grant)?;
                let granted = Granted::new(service, grant.clone(), headers, resolve);
                if origins.insert(grant.origin.clone(), Arc::new(granted)).is_some() {
                    let (service, origin) = (service.clone(), grant.origin.clone());
                    return Err(GrantError::Twice { service, origin });
                }
            }
            configured.insert(service.as_str().into(), origins);
        }
        let (resolve, response_bytes) = (resolve.clone(), limits.response_bytes);
        Ok(Self { configured, deployed: ArcSwap::default(), resolve, response_bytes })
    }

    /// Replaces the grants of the deployments: services may call these origins with any method, at public
    /// addresses, without secret headers. A grant of the configuration for the same origin has precedence.
    pub fn follow(&self, granted: impl IntoIterator<Item = (ServiceName, HttpOrigin)>) {
        let deployed = self.deployed.load();
        let [before, _] = &**deployed;
        let mut now = Origins::new();
        for (service, origin) in granted {
            // Keeps its connections.
            let known = before.get(&service).and_then(|origins| origins.get(&origin)).cloned();
            let granted = known.unwrap_or_else(|| {
                let grant = HttpGrant::with_deployment(origin.clone());
                Arc::new(Granted::new(service.as_str(), grant, Vec::new(), &self.resolve))
            });
            now.entry(service).or_default().insert(origin, granted);
        }
        self.deployed.store(Arc::new([Arc::new(now), before.clone()]));
    }

    /// Returns whether the configuration grants the service an origin.
    pub fn is_configured(&self, service: &str, origin: &HttpOrigin) -> bool {
        self.configured.get(service).is_some_and(|origins| origins.contains_key(origin))
    }

    fn granted(&self, service: &str, origin: &HttpOrigin) -> Option<Arc<Granted>> {
        let deployed = self.deployed.load();
        let [now, before] = &**deployed;
        let mut all = [&self.configured, now, before].into_iter();
        all.find_map(|origins| origins.get(service)?.get(origin)).cloned()
    }
}

#[async_trait]
impl Outgoing for HttpClient {
    async fn send(&self, service: &str, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        let origin = HttpOrigin::of(request.uri()).ok_or_else(|| {
            HttpFailure::new(HttpFailureKind::Denied, format!("{service} called something that is no URL"))
        })?;
        let granted = self.granted(service, &origin);
        let granted = granted.ok_or_else(|| policy::not_granted(service, &origin, request.method()))?;
        policy::check_method(service, &granted.grant, request.method())?;
        granted.send(request, self.response_bytes).await
    }
}

impl Granted {
    fn new(
        service: &str,
        grant: HttpGrant,
        headers: Vec<(HeaderName, HeaderValue)>,
        resolve: &Resolve,
    ) -> Self {
        let (service, grant) = (ServiceName::from(service), Arc::new(grant));
        let resolver =
            CheckedResolver { service: service.clone(), grant: grant.clone(), resolve: resolve.clone() };
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
        Self { service, grant, headers, client }
    }

    /// Sends a request. Follows no redirect: the component gets the answer as it is.
    async fn send(&self, mut request: HttpRequest, limit: usize) -> Result<HttpResponse, HttpFailure> {
        let (service, origin) = (self.service.as_str(), &self.grant.origin);
        // The connector does not resolve a literal address.
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

    /// Returns the failure for an error. `connecting`: nothing has been sent yet.
    fn failure(&self, error: &(dyn Error + 'static), connecting: bool) -> HttpFailure {
        let mut causes = std::iter::successors(Some(error), |&error| error.source());
        if let Some(failure) = causes.find_map(|cause| cause.downcast_ref::<HttpFailure>()) {
            return failure.clone();
        }
        let kind = if connecting { HttpFailureKind::Unreachable } else { HttpFailureKind::BrokenOff };
        let sentence = format!("{} has no answer from {}: {}", self.service, self.grant.origin, Chain(error));
        HttpFailure::new(kind, sentence)
    }
}

/// Reads the headers that the host sets on every request.
fn secret_headers(service: &str, grant: &HttpGrant) -> Result<Vec<(HeaderName, HeaderValue)>, GrantError> {
    let headers = grant.headers.iter().map(|(header, secret)| {
        secret_header(header, secret).map_err(|source| GrantError::Header {
            service: service.to_owned(),
            origin: grant.origin.clone(),
            header: header.clone(),
            source,
        })
    });
    headers.collect()
}

fn secret_header(name: &str, secret: &SecretSource) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let name = HeaderName::from_bytes(name.as_bytes())?;
    let mut value = HeaderValue::from_str(secret.read()?.reveal())?;
    // Debug output shows it as `Sensitive` from here on.
    value.set_sensitive(true);
    Ok((name, value))
}

/// A resolver that returns only checked addresses, so that a name cannot change its address between the check
/// and the connection.
#[derive(Clone)]
struct CheckedResolver {
    service: ServiceName,
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
            let addresses = addresses
                .map_err(|error| policy::no_address(service.as_str(), &grant.origin, &error.to_string()))?;
            policy::check_addresses(service.as_str(), &grant, &addresses)?;
            // The connector replaces port 0 with the URL's port.
            let sockets: Vec<_> = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(sockets.into_iter())
        })
    }
}
