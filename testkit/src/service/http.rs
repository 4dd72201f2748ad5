//! Scripted answers to HTTP requests, and a record of the requests.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use kontor::runtime::{HttpFailure, HttpFailureKind, HttpRequest, HttpResponse, Outgoing};
use serde_json::{Value, json};

/// A request that the component sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// The method, such as `POST`.
    pub method: String,
    /// The URL, with scheme and host.
    pub url: String,
    /// The headers, by name in lower case, including those that the host added. Values that are not text are
    /// left out.
    pub headers: BTreeMap<String, String>,
    /// The body: null if it was empty, a string if it was not JSON.
    pub body: Value,
}

impl Sent {
    fn new(request: &HttpRequest) -> Self {
        let headers = request.headers().iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Self {
            method: request.method().to_string(),
            url: request.uri().to_string(),
            headers: headers.collect(),
            body: match request.body() {
                body if body.is_empty() => Value::Null,
                body => serde_json::from_slice(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body))),
            },
        }
    }

    /// Returns the request as a value to compare and to print.
    pub(super) fn written(&self) -> Value {
        json!({ "method": self.method, "url": self.url, "headers": self.headers, "body": self.body })
    }
}

#[derive(Clone, Default)]
pub(super) struct HttpScript(Vec<Scripted>);

#[derive(Clone)]
struct Scripted {
    method: String,
    url: String,
    /// None: there is no answer.
    answer: Option<(u16, Value)>,
}

impl HttpScript {
    pub(super) fn add(&mut self, method: &str, url: &str, answer: Option<(u16, Value)>) {
        self.0.push(Scripted { method: method.to_owned(), url: url.to_owned(), answer });
    }
}

/// The requests of one call.
pub(super) struct Exchanges {
    script: HttpScript,
    sent: Mutex<Vec<Sent>>,
    /// The first request without a scripted answer.
    unanswered: Mutex<Option<Sent>>,
}

impl Exchanges {
    pub(super) fn new(script: &HttpScript) -> Self {
        Self { script: script.clone(), sent: Mutex::default(), unanswered: Mutex::default() }
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// Fails if a request had no scripted answer.
    pub(super) fn check(&self) -> Result<(), String> {
        match &*self.unanswered.lock().unwrap() {
            None => Ok(()),
            Some(Sent { method, url, body, .. }) => Err(format!(
                "{method} {url} was sent with the body {body}, and the test has no answer to that:\n  \
                 add .answers_http({method:?}, {url:?}, 200, json!(…))"
            )),
        }
    }
}

#[async_trait]
impl Outgoing for Exchanges {
    async fn send(&self, _service: &str, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        let sent = Sent::new(&request);
        let mut script = self.script.0.iter();
        let scripted = script.find(|known| (&known.method, &known.url) == (&sent.method, &sent.url));
        let url = sent.url.clone();
        self.sent.lock().unwrap().push(sent.clone());
        match scripted.map(|scripted| &scripted.answer) {
            Some(Some((status, body))) => {
                let mut response = HttpResponse::new(body.to_string().into());
                *response.status_mut() = (*status).try_into().expect("a status between 100 and 999");
                response.headers_mut().insert("content-type", "application/json".parse().expect("a header"));
                Ok(response)
            }
            Some(None) => Err(no_answer(format!("{url} is silent in this test"))),
            None => {
                self.unanswered.lock().unwrap().get_or_insert(sent);
                Err(no_answer("the test has no answer".to_owned()))
            }
        }
    }
}

fn no_answer(sentence: String) -> HttpFailure {
    HttpFailure::new(HttpFailureKind::Unreachable, sentence)
}
