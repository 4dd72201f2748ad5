//! An HTTP client for hosts.

use std::io::{BufRead as _, BufReader};
use std::iter;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody};

/// Longer than any wait that a test asks for; a request that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// Longer than a host takes to detect a problem on a busy machine.
const WARNING_LIMIT: Duration = Duration::from_secs(30);
/// More connections than any test has at once.
const CONNECTIONS: usize = 512;

/// A client of one host. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
    /// The header `Authorization` of all requests that have none.
    authorization: Option<String>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

pub(crate) type Headers<'a> = &'a [(&'static str, &'a str)];

/// The error of a request without an answer: the host is gone.
#[derive(Debug)]
pub(crate) struct NoAnswer(#[expect(dead_code, reason = "a failing test shows it")] ureq::Error);

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        Self::trusting(url, &[])
    }

    /// Returns a client that trusts the certificates of these authorities, each in PEM.
    pub(crate) fn trusting(url: &str, authorities: &[u8]) -> Self {
        let authorities = parse_pem(authorities).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let authorities: Vec<_> = authorities.collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::from(authorities)).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .max_idle_connections(CONNECTIONS)
            .max_idle_connections_per_host(CONNECTIONS)
            .timeout_global(Some(LIMIT))
            .build();
        Self { agent: config.into(), url: url.to_owned(), authorization: None }
    }

    /// Returns a client of the same host that signs in with a token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {}", token.trim())), ..self.clone() }
    }

    /// Makes a token for a subject with these roles. Returns a client that signs in with it.
    pub(crate) fn signed_in(&self, subject: &str, roles: &[&str]) -> Self {
        let made = self.post("/admin/tokens", &[], &json!({"subject": subject, "roles": roles})).ok();
        self.with_token(made["token"].as_str().unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[])
    }

    pub(crate) fn get_with(&self, path: &str, headers: Headers<'_>) -> Reply {
        self.try_send("GET", path, headers, ()).unwrap()
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, &[], &body.to_string())
    }

    pub(crate) fn post(&self, path: &str, headers: Headers<'_>, body: &Value) -> Reply {
        self.send("POST", path, headers, &body.to_string())
    }

    /// Sends JSON, or the content type in `headers`.
    pub(crate) fn send(&self, method: &str, path: &str, headers: Headers<'_>, body: &str) -> Reply {
        self.try_send(method, path, headers, body).unwrap()
    }

    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: impl AsSendBody,
    ) -> Result<Reply, NoAnswer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = self.sign_in(request);
        }
        let mut response = self.agent.run(request.body(body).unwrap()).map_err(NoAnswer)?;
        let text = response.body_mut().with_config().limit(u64::MAX).read_to_string().map_err(NoAnswer)?;
        Ok(Reply { status: response.status().as_u16(), headers: response.headers().clone(), text })
    }

    /// Returns the events after a position as they arrive, until the host ends or [`LIMIT`] has passed.
    pub(crate) fn follow(&self, after: u64) -> impl Iterator<Item = Value> + use<> {
        self.follow_selected(&format!("after={after}"))
    }

    /// Returns the events that a query string selects, in the same way.
    pub(crate) fn follow_selected(&self, query: &str) -> impl Iterator<Item = Value> + use<> {
        let lines = self.event_stream(query);
        lines.filter_map(|line| line.strip_prefix("data: ").map(|event| serde_json::from_str(event).unwrap()))
    }

    /// Returns the lines of a stream of events.
    pub(crate) fn event_stream(&self, query: &str) -> impl Iterator<Item = String> + use<> {
        let request = Request::get(format!("{}/events?{query}", self.url));
        let request = request.header("accept", "text/event-stream");
        let request = self.sign_in(request).body(()).unwrap();
        let response = self.agent.run(request).unwrap();
        BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok)
    }

    fn sign_in(&self, request: Builder) -> Builder {
        let values = self.authorization.iter();
        values.fold(request, |request, value| request.header("authorization", value))
    }

    /// Returns all events after a position.
    pub(crate) fn events(&self, after: u64) -> Vec<Value> {
        self.each_event(after).collect()
    }

    /// Returns the same events, read page by page.
    pub(crate) fn each_event(&self, after: u64) -> impl Iterator<Item = Value> {
        self.pages("/events".to_owned(), after)
    }

    /// Returns the whole history of one aggregate, such as `order/1`.
    pub(crate) fn history(&self, stream: &str) -> Vec<Value> {
        self.pages(format!("/streams/{stream}"), 0).collect()
    }

    fn pages(&self, path: String, after: u64) -> impl Iterator<Item = Value> {
        let mut next = Some(after);
        let pages = iter::from_fn(move || {
            let path = format!("{path}?limit=1000&after={}", next?);
            let mut page = self.get_with(&path, &[("accept", "application/json")]).ok();
            next = page["next"].as_u64();
            let Value::Array(items) = page["items"].take() else { panic!("no list in {page}") };
            Some(items)
        });
        pages.flatten()
    }

    /// Waits until `/readyz` contains this warning.
    #[track_caller]
    pub(crate) fn await_warning(&self, warning: &str) {
        let deadline = Instant::now() + WARNING_LIMIT;
        loop {
            let ready = self.get("/readyz").text;
            if ready.contains(warning) {
                return;
            }
            assert!(Instant::now() < deadline, "not {warning}, but {ready}");
            thread::yield_now();
        }
    }

    /// Returns the value of a metric.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").text;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    }

    /// Returns the position of the log's last event.
    pub(crate) fn head(&self) -> u64 {
        self.events(0).last().map_or(0, |event| event["position"].as_u64().unwrap())
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }

    /// Returns the body of a reply that must be a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text);
        self.json()
    }

    /// Returns the body of a reply that must be a problem with this status and code.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let problem = serde_json::from_str(&self.text).unwrap_or(Value::Null);
        let answer = (self.status, self.header("content-type"), problem["code"].as_str());
        assert_eq!(answer, (status, Some("application/problem+json"), Some(code)), "{}", self.text);
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "{}", self.text);
        problem
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}
