//! The HTTP client of the commands that call a running host.

use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use kontor::contract::ProblemCode;
use kontor::deploy::Report;
use serde::Deserialize;
use serde_json::Value;
use tokio_rustls::rustls;
use ureq::typestate::WithoutBody;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body, RequestBuilder, http::Response};

pub(super) use super::actor::{ActArguments, ActorArgument};
use super::exit::Exit;
pub(super) use super::target::HostArgument;
use super::target::{Address, Target, TargetError};
use super::unix::UnixConnector;

/// The longest time for a connection: some round trips around the world. A host on this machine accepts at
/// once.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The longest time for the first byte of a response: twice the default of `limits.wait_ms`.
const RESPONSE_LIMIT: Duration = Duration::from_secs(60);

/// The longest time for the gates of a deployment: in an hour they fold some ten million streams.
const GATES_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The largest response that is read into memory: a full page of the largest events.
const MAX_RESPONSE_BYTES: u64 = 128 * 1024 * 1024;

const JSON: &str = "application/json";

/// The URL of requests through a Unix socket. The host serves it as one from its own machine.
const UNIX_URL: &str = "http://127.0.0.1";

/// The failure of a call, as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("no host answers at {host}; start one with `kontor serve`, or name another with --host")]
    Unreachable { host: String, source: Box<ureq::Error> },
    #[error("the host at {host} speaks TLS: use {url}")]
    SpeaksTls { host: String, url: String },
    #[error("the host at {host} does not speak TLS: use {url}")]
    SpeaksNoTls { host: String, url: String },
    #[error("no connection to {host} is private; name the authority of its certificate with --ca")]
    Untrusted { host: String, source: Box<ureq::Error> },
    /// A problem of the host with a status below 500.
    #[error("the host refused: {message}")]
    Refused {
        /// The problem's detail and code.
        message: String,
        /// The report of the gates, if a gate refused a deployment.
        report: Option<Box<Report>>,
    },
    /// A gate refused a deployment; its report has been printed.
    #[error("nothing was changed: {0}")]
    GateRefused(String),
    /// The host has nothing of that name.
    #[error("{0}")]
    Missing(String),
    /// A problem of the host that may not last.
    #[error("the host cannot answer: {0}")]
    Unavailable(String),
    /// The host has ended the connection.
    #[error("{0}")]
    Ended(String),
    #[error("{host} redirects to {to}; if that is the host, name it with --host")]
    Redirected { host: String, to: String },
    #[error("{host} answered with status {status} and no problem; is it a Kontor host?")]
    NoProblem { host: String, status: u16 },
    #[error("cannot read the response of {host}")]
    Unreadable { host: String, source: Box<ureq::Error> },
}

impl ClientError {
    /// Returns the exit code of a program that ends with this failure.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Target(_) | Self::SpeaksTls { .. } | Self::SpeaksNoTls { .. } => Exit::Usage,
            Self::Refused { .. } | Self::GateRefused(_) | Self::Missing(_) => Exit::Refused,
            Self::NoProblem { status, .. } if may_pass(*status) => Exit::Unavailable,
            Self::NoProblem { status: 400..500, .. } => Exit::Refused,
            Self::NoProblem { .. } | Self::Redirected { .. } => Exit::Failed,
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Unavailable(_)
            | Self::Ended(_)
            | Self::Unreadable { .. } => Exit::Unavailable,
        }
    }
}

/// Returns true for the status of a failure that a later attempt may not meet: a timeout, a limit of the
/// caller, or a failure of the host itself.
fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..)
}

/// The problem of a request that failed (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: Option<String>,
    code: Option<String>,
    report: Option<Box<Report>>,
}

/// A client of one host.
pub(super) struct Client {
    agent: Agent,
    /// The host's URL, without a slash at the end.
    url: String,
    /// The host as its operator names it.
    host: String,
    /// The header `authorization`, if the client signs in.
    authorization: Option<String>,
}

impl Client {
    /// Returns a client for a host. Fails if the arguments name none, or a token that cannot be used.
    pub(super) fn new(argument: &HostArgument) -> Result<Self, ClientError> {
        Self::of(argument.target()?, RESPONSE_LIMIT)
    }

    /// Returns a client that waits for the gates of a deployment.
    pub(super) fn of_deployments(argument: &HostArgument) -> Result<Self, ClientError> {
        Self::of(argument.target()?, GATES_LIMIT)
    }

    /// Returns a client for a sign-in.
    pub(super) fn of_target(target: Target) -> Result<Self, ClientError> {
        Self::of(target, RESPONSE_LIMIT)
    }

    /// Returns a client. `response` is the longest time for the first byte of a response.
    fn of(target: Target, response: Duration) -> Result<Self, ClientError> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A proxy of the environment is for the web; hosts are called directly.
            .proxy(None)
            // A redirect is never followed, so that a token stays with the host that it is for.
            .max_redirects(0)
            .tls_config(target.tls()?)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(response))
            .build();
        let host = target.address.to_string();
        let (agent, url) = match target.address {
            Address::Url(url) => (config.into(), url),
            Address::Unix(socket) => {
                let connector = UnixConnector(socket);
                (Agent::with_parts(config, connector, DefaultResolver::default()), UNIX_URL.to_owned())
            }
        };
        let authorization = target.token.map(|token| token.header());
        Ok(Self { agent, url, host, authorization })
    }

    /// Gets `path`. Returns the JSON text of the response.
    pub(super) fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<String, ClientError> {
        let response = self.request(path, parameters, JSON)?;
        self.text(response)
    }

    /// Gets `path`. Returns none if the host has nothing there.
    pub(super) fn find(&self, path: &str) -> Result<Option<String>, ClientError> {
        let response = self.signed(self.agent.get(self.at(path)), JSON).call();
        let response = response.map_err(|error| self.failed(error))?;
        match response.status().as_u16() {
            404 => Ok(None),
            _ => self.text(self.checked(response)?).map(Some),
        }
    }

    /// Puts bytes to `path`. Returns the JSON text of the response.
    pub(super) fn put(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<String, ClientError> {
        let mut request = self.signed(self.agent.put(self.at(path)), JSON);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        let response = request.send(body).map_err(|error| self.failed(error))?;
        self.text(self.checked(response)?)
    }

    /// Deletes the resource at `path`. Returns the JSON text of the response.
    pub(super) fn delete(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        headers: &[(&str, &str)],
    ) -> Result<String, ClientError> {
        let mut request = self.signed(self.agent.delete(self.at(path)), JSON);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.text(self.call(request, parameters)?)
    }

    /// Posts JSON to `path`. Returns the JSON text of the response.
    pub(super) fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<String, ClientError> {
        let mut request = self.signed(self.agent.post(self.at(path)), JSON);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response =
            request.content_type(JSON).send(body.to_string()).map_err(|error| self.failed(error))?;
        let response = self.checked(response)?;
        self.text(response)
    }

    /// Opens the server-sent events at `path`, which do not end.
    pub(super) fn follow(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<impl BufRead + use<>, ClientError> {
        let response = self.request(path, parameters, "text/event-stream")?;
        Ok(BufReader::new(response.into_body().into_reader()))
    }

    fn request(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        accept: &str,
    ) -> Result<Response<Body>, ClientError> {
        self.call(self.signed(self.agent.get(self.at(path)), accept), parameters)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Adds the headers of every request.
    fn signed<B>(&self, request: RequestBuilder<B>, accept: &str) -> RequestBuilder<B> {
        let request = request.header("accept", accept);
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn call(
        &self,
        mut request: RequestBuilder<WithoutBody>,
        parameters: &[(&str, String)],
    ) -> Result<Response<Body>, ClientError> {
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        let response = request.call().map_err(|error| self.failed(error))?;
        self.checked(response)
    }

    /// Returns the response, or the problem of a status that is not a success.
    fn checked(&self, response: Response<Body>) -> Result<Response<Body>, ClientError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        if let Some(to) = response.headers().get("location").filter(|_| (300..400).contains(&status)) {
            let to = String::from_utf8_lossy(to.as_bytes()).into_owned();
            return Err(ClientError::Redirected { host: self.host.clone(), to });
        }
        let body = self.text(response)?;
        Err(self.problem(status, &body))
    }

    fn text(&self, mut response: Response<Body>) -> Result<String, ClientError> {
        response
            .body_mut()
            .with_config()
            .limit(MAX_RESPONSE_BYTES)
            .read_to_string()
            .map_err(|error| ClientError::Unreadable { host: self.host.clone(), source: Box::new(error) })
    }

    fn failed(&self, error: ureq::Error) -> ClientError {
        let (host, source) = (self.host.clone(), Box::new(error));
        if let Some(rest) = self.url.strip_prefix("https:").filter(|_| is_no_tls(&source)) {
            return ClientError::SpeaksNoTls { host, url: format!("http:{rest}") };
        }
        match &*source {
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => TargetError::NotAnAddress(host).into(),
            ureq::Error::Protocol(_) => ClientError::Unreadable { host, source },
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => ClientError::Untrusted { host, source },
            // The handshake wraps the reason in an error of the connection.
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                ClientError::Untrusted { host, source }
            }
            _ => ClientError::Unreachable { host, source },
        }
    }

    fn problem(&self, status: u16, body: &str) -> ClientError {
        let Ok(problem) = serde_json::from_str::<Problem>(body) else {
            return ClientError::NoProblem { host: self.host.clone(), status };
        };
        if problem.code.as_deref() == Some(ProblemCode::PlainHttp.name())
            && let Some(rest) = self.url.strip_prefix("http:")
        {
            return ClientError::SpeaksTls { host: self.host.clone(), url: format!("https:{rest}") };
        }
        let code = problem.code.map(|code| format!(" ({code})")).unwrap_or_default();
        let message = problem.detail.unwrap_or(problem.title) + &code;
        match status {
            401 => ClientError::Refused {
                message: format!("{message}; sign in with `kontor login`, --token-file or KONTOR_TOKEN"),
                report: None,
            },
            status if may_pass(status) => ClientError::Unavailable(message),
            _ => ClientError::Refused { message, report: problem.report },
        }
    }
}

/// Returns whether the answer to a handshake was none of TLS, as a host without TLS gives it.
fn is_no_tls(error: &ureq::Error) -> bool {
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        // The handshake wraps the reason in an error of the connection.
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    };
    matches!(tls, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

#[cfg(test)]
mod tests;
