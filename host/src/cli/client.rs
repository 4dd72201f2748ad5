//! The HTTP client of the commands that call a running host.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use kontor::deploy::Report;
use serde::Deserialize;
use serde_json::Value;
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder, http::Response};

/// The longest time for a connection. A host on this machine accepts at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The longest time for the first byte of a response: twice the default of `limits.wait_ms`.
const RESPONSE_LIMIT: Duration = Duration::from_secs(60);

/// The longest time for the gates of a deployment: in an hour they fold some ten million streams.
const GATES_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The largest response that is read into memory: a full page of the largest events.
const MAX_RESPONSE_BYTES: u64 = 128 * 1024 * 1024;

const JSON: &str = "application/json";
const DEFAULT_HOST: &str = "http://127.0.0.1:7070";

/// The host that a command calls.
#[derive(Debug, clap::Args)]
pub(super) struct HostArgument {
    /// The running host to call
    #[arg(long, env = "KONTOR_HOST", value_name = "URL", default_value = DEFAULT_HOST)]
    pub(super) host: String,
}

impl HostArgument {
    /// Returns the flag of a further command for the same host: ` --host URL`, or nothing for the default.
    pub(super) fn flag(&self) -> String {
        if self.host == DEFAULT_HOST { String::new() } else { format!(" --host {}", self.host) }
    }
}

/// The operator who runs a command.
#[derive(Debug, clap::Args)]
pub(super) struct ActorArgument {
    /// The name of the operator. It stays in the log
    #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
    actor: String,
}

impl ActorArgument {
    /// Returns the header that names the operator.
    pub(super) fn header(&self) -> (&'static str, &str) {
        ("kontor-actor", &self.actor)
    }
}

/// The operator who runs a command, and why.
#[derive(Debug, clap::Args)]
pub(super) struct ActArguments {
    /// The reason. It stays in the log
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) actor: ActorArgument,
}

/// The failure of a call, as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{0} is not the address of a host; it looks like http://127.0.0.1:7070")]
    NotAnAddress(String),
    #[error("no host answers at {host}; start one with `kontor serve`, or name another with --host")]
    Unreachable { host: String, source: Box<ureq::Error> },
    /// A problem of the host.
    #[error("the host refused: {message}")]
    Refused {
        /// The problem's detail and code.
        message: String,
        /// The report of the gates, if a gate refused a deployment.
        report: Option<Box<Report>>,
    },
    #[error("{host} answered with status {status} and no problem; is it a Kontor host?")]
    NoProblem { host: String, status: u16 },
    #[error("cannot read the response of {host}")]
    Unreadable { host: String, source: Box<ureq::Error> },
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
    host: String,
}

impl Client {
    /// Returns a client for a host. Fails if the argument is not an address.
    pub(super) fn new(argument: &HostArgument) -> Result<Self, ClientError> {
        Self::with_limit(argument, RESPONSE_LIMIT)
    }

    /// Returns a client that waits for the gates of a deployment.
    pub(super) fn of_deployments(argument: &HostArgument) -> Result<Self, ClientError> {
        Self::with_limit(argument, GATES_LIMIT)
    }

    /// Returns a client. `response` is the longest time for the first byte of a response.
    fn with_limit(argument: &HostArgument, response: Duration) -> Result<Self, ClientError> {
        let host = argument.host.trim_end_matches('/').to_owned();
        if !host.starts_with("http://") {
            return Err(ClientError::NotAnAddress(host));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Hosts listen on loopback, where a proxy of the environment cannot reach them.
            .proxy(None)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(response))
            .build();
        Ok(Self { agent: config.into(), host })
    }

    /// Gets `path`. Returns the JSON text of the response.
    pub(super) fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<String, ClientError> {
        let response = self.request(path, parameters, JSON)?;
        self.text(response)
    }

    /// Puts bytes to `path`. Returns the JSON text of the response.
    pub(super) fn put(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<String, ClientError> {
        let mut request = self.agent.put(format!("{}{path}", self.host)).header("accept", JSON);
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
        let mut request = self.agent.delete(format!("{}{path}", self.host)).header("accept", JSON);
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
        let mut request = self.agent.post(format!("{}{path}", self.host)).header("accept", JSON);
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
        self.call(self.agent.get(format!("{}{path}", self.host)).header("accept", accept), parameters)
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
        match *source {
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => ClientError::NotAnAddress(host),
            ureq::Error::Protocol(_) => ClientError::Unreadable { host, source },
            _ => ClientError::Unreachable { host, source },
        }
    }

    fn problem(&self, status: u16, body: &str) -> ClientError {
        match serde_json::from_str::<Problem>(body) {
            Ok(problem) => {
                let code = problem.code.map(|code| format!(" ({code})")).unwrap_or_default();
                let message = problem.detail.unwrap_or(problem.title) + &code;
                ClientError::Refused { message, report: problem.report }
            }
            Err(_) => ClientError::NoProblem { host: self.host.clone(), status },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::scripted_host::scripted_host;
    use super::*;

    fn client(host: &str) -> Result<Client, ClientError> {
        Client::new(&HostArgument { host: host.to_owned() })
    }

    #[test]
    fn every_failure_is_a_sentence() {
        let table = [
            (
                "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n\
                 {\"title\":\"Not found\",\"status\":404,\"detail\":\"There is no order with the id 7.\",\
                 \"code\":\"not-found\"}",
                "the host refused: There is no order with the id 7. (not-found)",
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n{\"title\":\"Too busy\"}",
                "the host refused: Too busy",
            ),
            (
                "HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\n\r\n<html>",
                "HOST answered with status 502 and no problem; is it a Kontor host?",
            ),
            ("SSH-2.0-OpenSSH\r\n\r\n", "cannot read the response of HOST"),
        ];
        for (answer, expected) in table {
            let (host, answering) = scripted_host(vec![answer.to_owned()]);
            let error = client(&host).unwrap().get("/x", &[]).unwrap_err().to_string();
            answering.join().unwrap();
            assert_eq!(error.replace(&host, "HOST"), expected);
        }
    }

    #[test]
    fn the_error_of_a_missing_host_says_how_to_start_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = client(&host).unwrap().get("/x", &[]).unwrap_err().to_string();
        assert!(error.contains("start one with `kontor serve`"), "{error}");
    }

    #[test]
    fn only_http_addresses_are_called() {
        for host in ["127.0.0.1:7070", "https://127.0.0.1:7070", "http://a b", ""] {
            let error = client(host).and_then(|client| client.get("/x", &[])).unwrap_err();
            assert!(matches!(error, ClientError::NotAnAddress(_)), "{host:?}: {error:?}");
        }
    }

    #[test]
    fn parameters_are_encoded_in_the_address() {
        let (host, answering) =
            scripted_host(vec!["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}".to_owned()]);
        let body = client(&host).unwrap().get("/events", &[("after", "3 &".to_owned())]).unwrap();
        assert_eq!(
            (body.as_str(), answering.join().unwrap()),
            ("{}", vec!["GET /events?after=3%20%26 HTTP/1.1".to_owned()])
        );
    }
}
