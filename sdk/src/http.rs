//! Calls over HTTP to servers outside, from [`decide`](crate::Aggregate::decide) and
//! [`compensate`](crate::Aggregate::compensate) only. The service asks for their origins with
//! [`Service::asks_http`](crate::Service::asks_http), and the operator of the host grants them.
//!
//! A command may be decided more than once: send [`Context::command_id`](crate::Context::command_id) as the
//! idempotency key. The host limits the time of a request and the sizes of both bodies, follows no redirect,
//! and adds `traceparent`, `x-request-id` and the headers that hold the operator's secrets.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
};
use wasip2::io::streams::StreamError;

use crate::json;

/// The most that a stream of `wasi:io` takes in one blocking write.
const WRITE_BYTES: usize = 4 << 10;
/// The most that one read asks for.
const READ_BYTES: u64 = 64 << 10;

/// A request that has not been sent yet.
#[derive(Clone, Debug)]
#[must_use = "send it"]
pub struct Request {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The answer to a request, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// The reason why there is no answer, or none that can be read: one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

/// Begins the request `GET url`.
pub fn get(url: impl Into<String>) -> Request {
    Request::new(Method::Get, url)
}

/// Begins the request `POST url`.
pub fn post(url: impl Into<String>) -> Request {
    Request::new(Method::Post, url)
}

/// Begins the request `PUT url`.
pub fn put(url: impl Into<String>) -> Request {
    Request::new(Method::Put, url)
}

/// Begins the request `PATCH url`.
pub fn patch(url: impl Into<String>) -> Request {
    Request::new(Method::Patch, url)
}

/// Begins the request `DELETE url`.
pub fn delete(url: impl Into<String>) -> Request {
    Request::new(Method::Delete, url)
}

impl Request {
    fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body, of the kind that the header `content-type` names.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Sets a body of JSON.
    pub fn json(self, body: &impl Serialize) -> Self {
        self.header("content-type", "application/json").body(json::text(body))
    }

    /// Sends the request and waits for the whole answer.
    pub fn send(self) -> Result<Response, Error> {
        self.exchange().map_err(|reason| Error(format!("{self} has no answer: {reason}")))
    }

    fn exchange(&self) -> Result<Response, String> {
        let request = self.head()?;
        let body = request.body().map_err(|()| "it can have no body")?;
        let answer = outgoing_handler::handle(request, None).map_err(|code| code.to_string())?;
        // Err: the server takes no more of the body; its answer says why.
        let _ = self.write(body);
        read(&wait(&answer)?)
    }

    fn head(&self) -> Result<OutgoingRequest, String> {
        let (scheme, rest) = match self.url.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err("the URL is not absolute".to_owned()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path } else { &format!("/{path}") };
        let fields = Fields::new();
        // The host takes a body for whole only if it is as long as announced.
        let length = ("content-length".to_owned(), self.body.len().to_string());
        for (name, value) in self.headers.iter().chain([&length]) {
            let added = fields.append(name, value.as_bytes());
            added.map_err(|error| format!("the header {name} cannot be sent: {error}"))?;
        }
        let request = OutgoingRequest::new(fields);
        let set = request
            .set_method(&self.method)
            .and_then(|()| request.set_scheme(Some(&scheme)))
            .and_then(|()| request.set_authority(Some(authority)))
            .and_then(|()| request.set_path_with_query(Some(path)));
        set.map_err(|()| "the URL is not valid".to_owned())?;
        Ok(request)
    }

    fn write(&self, body: OutgoingBody) -> Result<(), StreamError> {
        if let Ok(stream) = body.write() {
            for chunk in self.body.chunks(WRITE_BYTES) {
                stream.blocking_write_and_flush(chunk)?;
            }
        }
        // Err: the body is not as announced; the answer says so.
        let _ = OutgoingBody::finish(body, None);
        Ok(())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match &self.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            other => return write!(f, "{other:?} {}", self.url),
        };
        write!(f, "{method} {}", self.url)
    }
}

fn wait(answer: &FutureIncomingResponse) -> Result<IncomingResponse, String> {
    loop {
        match answer.get() {
            Some(Ok(response)) => return response.map_err(|code| code.to_string()),
            Some(Err(())) => return Err("the answer has been taken already".to_owned()),
            None => answer.subscribe().block(),
        }
    }
}

fn read(response: &IncomingResponse) -> Result<Response, String> {
    let incoming = response.consume().map_err(|()| "its body has been taken already")?;
    let stream = incoming.stream().map_err(|()| "its body has been taken already")?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(chunk) => body.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
    Ok(Response { status: response.status(), headers: response.headers().entries(), body })
}

impl Response {
    /// Returns the status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the first header of this name (in any case), if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        header.and_then(|(_, value)| str::from_utf8(value).ok())
    }

    /// Returns the body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error(format!("the answer cannot be read: {error}")))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::Fault(error.0)
    }
}
