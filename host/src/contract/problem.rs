//! Every error that leaves the edge, by whichever door: a problem (RFC 9457) with a stable `code`.

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Serialize;

use super::schema::Violation;
use crate::error::{Fault, FaultKind};
use crate::model::{InvalidId, Json, Position, Rejection, Version};

/// The content type of a problem's body.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// One error as the caller sees it, and what the log is to know of it. Boxed: results are mostly good ones, and small.
#[derive(Debug)]
pub(crate) struct Problem(Box<Facts>);

#[derive(Debug)]
struct Facts {
    status: StatusCode,
    code: String,
    detail: String,
    details: Option<Json>,
    errors: Vec<Violation>,
    /// The report of a deployment that a gate refused.
    report: Option<Json>,
    versions: Option<Versions>,
    /// How far a query could have seen.
    reached: Option<Position>,
    /// The position in the log that the refusal reflects at least, if it was decided on what is in the log.
    reflects: Option<Position>,
    /// The methods that the path knows (405).
    allow: Option<HeaderValue>,
    /// Whether the same request may well succeed in a second.
    retry: bool,
    /// The text for the host's log; the caller never sees it. None: the detail says it all.
    log_text: Option<String>,
    /// False if the host has reported the failure once for all requests.
    logged: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Versions {
    /// None if any version would have done.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<Version>,
    actual_version: Version,
}

/// The members of RFC 9457 and ours. The type is left blank: `code` tells problems apart.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Json>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a Json>,
    #[serde(flatten)]
    versions: Option<Versions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            status,
            code: code.into(),
            detail: detail.into(),
            details: None,
            errors: Vec::new(),
            report: None,
            versions: None,
            reached: None,
            reflects: None,
            allow: None,
            retry: false,
            log_text: None,
            logged: true,
        }))
    }

    pub(crate) fn invalid_header(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-header", detail)
    }

    pub(crate) fn invalid_parameter(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub(crate) fn method_not_allowed(allow: HeaderValue) -> Self {
        let detail = format!("This path knows {}.", allow.to_str().unwrap_or_default());
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail);
        problem.0.allow = Some(allow);
        problem
    }

    /// The text did not follow its schema.
    pub(crate) fn violations(code: &'static str, detail: &str, errors: Vec<Violation>) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
        problem.0.errors = errors;
        problem
    }

    /// The report of a deployment, as the caller gets it.
    pub(crate) fn with_report(mut self, report: Json) -> Self {
        self.0.report = Some(report);
        self
    }

    pub(crate) fn version_mismatch(expected: Option<Version>, actual: Version) -> Self {
        let detail = match expected {
            Some(expected) => format!("The aggregate is at version {actual}, not {expected}."),
            None => "The aggregate does not exist.".to_owned(),
        };
        let mut problem = Self::new(StatusCode::PRECONDITION_FAILED, "version-mismatch", detail);
        problem.0.versions = Some(Versions { expected_version: expected, actual_version: actual });
        problem
    }

    pub(crate) fn too_large(what: &str, most: usize) -> Self {
        let detail = format!("{what} may have {most} bytes at most.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", detail)
    }

    /// Something in the host itself went wrong.
    pub(crate) fn internal() -> Self {
        let detail = "The host failed to answer. Its log says why.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(crate) fn unavailable(code: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.0.retry = true;
        problem
    }

    /// A bounded queue is full; nothing was done.
    pub(crate) fn busy() -> Self {
        Self::unavailable("busy", "The host has as much work as it takes on. Nothing was done.")
    }

    pub(crate) fn shutting_down() -> Self {
        Self::unavailable("shutting-down", "The host is shutting down. Nothing was done.")
    }

    /// What is waited for has only come to a position in the allotted time.
    pub(crate) fn behind(code: &str, detail: String, reached: Position) -> Self {
        let mut problem = Self::new(StatusCode::GATEWAY_TIMEOUT, code, detail);
        problem.0.reached = Some(reached);
        problem.0.retry = true;
        problem
    }

    /// The refusal was decided on the log up to there, at least.
    pub(crate) fn reflecting(mut self, position: Position) -> Self {
        self.0.reflects = Some(position);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) fn code(&self) -> &str {
        &self.0.code
    }

    /// See [`Problem::reflecting`].
    pub(crate) fn reflects(&self) -> Option<Position> {
        self.0.reflects
    }

    /// The methods that the path knows, if it does not know this one.
    pub(crate) fn allow(&self) -> Option<&HeaderValue> {
        self.0.allow.as_ref()
    }

    /// Whether the same request may well succeed in a second.
    pub(crate) fn is_passing(&self) -> bool {
        self.0.retry
    }

    /// Whether the request itself is wrong, so that it will be refused for ever.
    pub(crate) fn is_final(&self) -> bool {
        let refusals =
            [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        refusals.contains(&self.0.status)
    }

    /// The JSON text that the caller gets.
    pub(crate) fn body(&self) -> Vec<u8> {
        let facts = &*self.0;
        let body = Body {
            r#type: "about:blank",
            title: facts.status.canonical_reason().unwrap_or_default(),
            status: facts.status.as_u16(),
            detail: &facts.detail,
            code: &facts.code,
            details: facts.details.as_ref(),
            errors: &facts.errors,
            report: facts.report.as_ref(),
            versions: facts.versions,
            position: facts.reached,
        };
        // These types always have a JSON form; the status would stand even without a body.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// The same problem with the text that the host's log gets.
    pub(crate) fn with_log_text(mut self, text: String) -> Self {
        self.0.log_text = Some(text);
        self
    }

    /// The same problem, which the host has reported already, once for all requests.
    pub(crate) fn unlogged(mut self) -> Self {
        self.0.logged = false;
        self
    }

    /// Returns whether the host has failed and has not reported it elsewhere.
    pub(crate) fn is_to_be_logged(&self) -> bool {
        self.status().is_server_error() && self.0.logged
    }

    /// The text for the host's log: the whole chain of causes.
    pub(crate) fn log_text(&self) -> &str {
        self.0.log_text.as_deref().unwrap_or(&self.0.detail)
    }
}

/// A business "no" conflicts with the state of things (409), with three exceptions that HTTP has words for.
impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection.code.as_str() {
            "not-found" => StatusCode::NOT_FOUND,
            "invalid-payload" | "invalid-arguments" => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::CONFLICT,
        };
        let mut problem = Self::new(status, rejection.code, rejection.message);
        problem.0.details = rejection.details;
        problem
    }
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        let (status, code) = match fault.kind {
            FaultKind::Trap => (StatusCode::INTERNAL_SERVER_ERROR, "component-trapped"),
            FaultKind::Memory => (StatusCode::INTERNAL_SERVER_ERROR, "component-out-of-memory"),
            FaultKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "component-timeout"),
            FaultKind::Contract => (StatusCode::BAD_GATEWAY, "component-broke-contract"),
        };
        Self::new(status, code, format!("The service {} {}. Nothing was done.", fault.service, fault.kind))
            .with_log_text(format!("{fault}: {}", fault.detail))
    }
}

impl From<InvalidId> for Problem {
    fn from(error: InvalidId) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-id", format!("The id cannot be used: {error}."))
    }
}
