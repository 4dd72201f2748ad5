//! The errors that leave the edge, over HTTP and over NATS alike: problems (RFC 9457) with a stable `code`.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Denied;
use super::problem_code::ProblemCode;
use super::schema::Violation;
use crate::error::{Fault, FaultKind, printable};
use crate::model::{InvalidId, Json, Position, Rejection, Version};

/// The content type of a problem's body.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// The seconds after which a transient problem may have passed.
const TRANSIENT_S: u64 = 1;

/// The `type` of a problem whose code is a service's own (RFC 9457, 4.2.1).
const BLANK: &str = "about:blank";

/// One error as the caller sees it, with the text for the host's log. Boxed, because results are mostly good
/// and small.
#[derive(Debug)]
pub(crate) struct Problem(Box<Facts>);

#[derive(Debug)]
struct Facts {
    status: StatusCode,
    body: ProblemBody,
    /// The position in the log that the problem reflects at least. None: it was not decided on the log.
    reflects: Option<Position>,
    /// The methods of the path (405).
    allow: Option<HeaderValue>,
    /// True if the same request may succeed a second later.
    transient: bool,
    /// The seconds after which the same request may succeed, if they are known.
    retry_after_s: Option<u64>,
    /// The text for the host's log, which the caller never sees. None: `detail` says it all.
    log_text: Option<String>,
    /// False if the host has reported the failure once for all requests.
    logged: bool,
}

/// The body of every error (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct ProblemBody {
    /// The path of the code's explanation; `about:blank` for the code of a service.
    pub r#type: Cow<'static, str>,
    /// The title of the code.
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// One sentence about this case.
    pub detail: String,
    /// Stable: tell problems apart by it.
    pub code: Cow<'static, str>,
    /// The facts behind the code of a rejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
    /// The violations of a schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
    /// The findings of the gates (`gate-refused`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Json>,
    /// The version that the request asked for (`version-mismatch`). None: any version would have done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<Version>,
    /// The version of the aggregate (`version-mismatch`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_version: Option<Version>,
    /// The position that was reached (`read-model-behind`, `position-ahead`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

impl Problem {
    /// Returns a problem with a code of the host.
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let mut problem = Self::of(code.status(), code.name().into(), detail.into());
        problem.0.body.r#type = format!("/problems/{}", code.name()).into();
        problem.0.body.title = code.title().into();
        problem.0.transient = code.is_transient();
        problem
    }

    /// Returns the problem of a rejection that the host itself decided, whose code is one of the host's.
    pub(crate) fn of_host(rejection: Rejection) -> Self {
        match ProblemCode::named(&rejection.code) {
            Some(code) => Self::new(code, rejection.message),
            None => rejection.into(),
        }
    }

    fn of(status: StatusCode, code: Cow<'static, str>, detail: String) -> Self {
        let body = ProblemBody {
            r#type: BLANK.into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            detail: printable(detail),
            code,
            details: None,
            errors: Vec::new(),
            report: None,
            expected_version: None,
            actual_version: None,
            position: None,
        };
        Self(Box::new(Facts {
            status,
            body,
            reflects: None,
            allow: None,
            transient: false,
            retry_after_s: None,
            log_text: None,
            logged: true,
        }))
    }

    pub(crate) fn invalid_header(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::InvalidHeader, detail)
    }

    pub(crate) fn invalid_parameter(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::InvalidParameter, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::NotFound, detail)
    }

    /// Returns the problem of a path that has only the methods `allow`.
    pub(crate) fn method_not_allowed(allow: HeaderValue) -> Self {
        let detail = format!("This path has the methods {}.", allow.to_str().unwrap_or_default());
        let mut problem = Self::new(ProblemCode::MethodNotAllowed, detail);
        problem.0.allow = Some(allow);
        problem
    }

    /// Returns the problem of a text that does not follow its schema.
    pub(crate) fn violations(code: ProblemCode, detail: &str, errors: Vec<Violation>) -> Self {
        let mut problem = Self::new(code, detail);
        problem.0.body.errors = errors;
        problem
    }

    /// Returns the problem of a payload that does not follow its command's schema.
    pub(crate) fn invalid_payload(errors: Vec<Violation>) -> Self {
        Self::violations(
            ProblemCode::InvalidPayload,
            "The payload does not follow the command's schema.",
            errors,
        )
    }

    /// Returns the problem of arguments that do not follow their query's schema.
    pub(crate) fn invalid_arguments(errors: Vec<Violation>) -> Self {
        Self::violations(
            ProblemCode::InvalidArguments,
            "The arguments do not follow the query's schema.",
            errors,
        )
    }

    /// Adds the report of a deployment, as the caller gets it.
    pub(crate) fn with_report(mut self, report: Json) -> Self {
        self.0.body.report = Some(report);
        self
    }

    /// `expected`: none if it is not one version.
    pub(crate) fn version_mismatch(expected: Option<Version>, actual: Version) -> Self {
        let detail = match expected {
            Some(expected) => format!("The aggregate is at version {actual}, not {expected}."),
            None if actual == Version::START => "The aggregate does not exist.".to_owned(),
            None => format!("The aggregate is at version {actual}, which the request excludes."),
        };
        let mut problem = Self::new(ProblemCode::VersionMismatch, detail);
        problem.0.body.expected_version = expected;
        problem.0.body.actual_version = Some(actual);
        problem
    }

    /// `subject`: the thing that has more than `limit` bytes, as the beginning of a sentence.
    pub(crate) fn too_large(subject: &str, limit: usize) -> Self {
        Self::new(ProblemCode::PayloadTooLarge, format!("{subject} may have {limit} bytes at most."))
    }

    /// Returns the problem of a failure in the host itself.
    pub(crate) fn internal() -> Self {
        Self::new(ProblemCode::Internal, "The host failed to answer. Its log says why.")
    }

    /// Returns the problem of a bounded queue that is full; nothing was done.
    pub(crate) fn busy() -> Self {
        Self::new(ProblemCode::Busy, "The host has as much work as it accepts. Nothing was done.")
    }

    /// Returns the problem of a host that shuts down; nothing was done.
    pub(crate) fn shutting_down() -> Self {
        Self::new(ProblemCode::ShuttingDown, "The host is shutting down. Nothing was done.")
    }

    /// Returns the problem of a wait that has ended at the position `reached`.
    pub(crate) fn behind(code: ProblemCode, detail: String, reached: Position) -> Self {
        let mut problem = Self::new(code, detail);
        problem.0.body.position = Some(reached);
        problem
    }

    /// Adds the position in the log that the decision reflects at least.
    pub(crate) fn with_position(mut self, position: Position) -> Self {
        self.0.reflects = Some(position);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) fn code(&self) -> &str {
        &self.0.body.code
    }

    /// See [`Problem::with_position`].
    pub(crate) fn reflects(&self) -> Option<Position> {
        self.0.reflects
    }

    /// Returns the methods of the path, if it does not have that of the request.
    pub(crate) fn allow(&self) -> Option<&HeaderValue> {
        self.0.allow.as_ref()
    }

    /// Returns if the same request may succeed a second later.
    pub(crate) fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Adds the seconds after which the same request may succeed.
    pub(crate) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// Returns the seconds after which the same request may succeed.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.0.retry_after_s.or_else(|| self.0.transient.then_some(TRANSIENT_S))
    }

    /// Returns if the request itself is wrong, so that a repetition gets the same answer.
    pub(crate) fn is_final(&self) -> bool {
        let wrong =
            [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        wrong.contains(&self.0.status)
    }

    /// Returns the value of `WWW-Authenticate` for a caller that must identify itself (RFC 6750).
    pub(crate) fn challenge(&self) -> Option<HeaderValue> {
        match ProblemCode::named(self.code())? {
            ProblemCode::Unauthenticated => Some(HeaderValue::from_static("Bearer realm=\"kontor\"")),
            ProblemCode::InvalidToken => {
                Some(HeaderValue::from_static("Bearer realm=\"kontor\", error=\"invalid_token\""))
            }
            _ => None,
        }
    }

    /// Returns the value of `Accept-Encoding` for a caller whose encoding of the body is not accepted (RFC
    /// 9110,
    /// 12.5.3).
    pub(crate) fn accept_encoding(&self) -> Option<HeaderValue> {
        let refused = ProblemCode::named(self.code())? == ProblemCode::UnsupportedEncoding;
        refused.then(|| HeaderValue::from_static("identity"))
    }

    /// Returns the JSON text for the caller.
    pub(crate) fn body(&self) -> Vec<u8> {
        // Err: never, these types always have a JSON form; the status would stand even without a body.
        serde_json::to_vec(&self.0.body).unwrap_or_default()
    }

    /// Adds the text for the host's log.
    pub(crate) fn with_log_text(mut self, text: String) -> Self {
        self.0.log_text = Some(text);
        self
    }

    /// Marks a failure that the host has reported already, once for all requests.
    pub(crate) fn unlogged(mut self) -> Self {
        self.0.logged = false;
        self
    }

    /// Returns if the host has failed and has not reported it elsewhere.
    pub(crate) fn is_to_be_logged(&self) -> bool {
        self.status().is_server_error() && self.0.logged
    }

    /// Returns the text for the host's log: the whole chain of causes.
    pub(crate) fn log_text(&self) -> &str {
        self.0.log_text.as_deref().unwrap_or(&self.0.body.detail)
    }
}

/// The rejection of a service conflicts with the state of things (409), with three exceptions that HTTP has a
/// status for.
impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection.code.as_str() {
            "not-found" => StatusCode::NOT_FOUND,
            "forbidden" => StatusCode::FORBIDDEN,
            "invalid-payload" | "invalid-arguments" => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::CONFLICT,
        };
        let mut problem = Self::of(status, rejection.code.into(), rejection.message);
        problem.0.body.details = rejection.details;
        problem
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match &denied {
            Denied::NotSignedIn => {
                Self::new(ProblemCode::Unauthenticated, "The route is for callers that have signed in.")
            }
            Denied::NoRole(_) => {
                Self::new(ProblemCode::Forbidden, format!("The caller may not use the route: {denied}."))
            }
        }
    }
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        let code = match fault.kind {
            FaultKind::Trap => ProblemCode::ComponentTrapped,
            FaultKind::Memory => ProblemCode::ComponentOutOfMemory,
            FaultKind::Timeout => ProblemCode::ComponentTimeout,
            FaultKind::Contract => ProblemCode::ComponentBrokeContract,
            FaultKind::Busy => ProblemCode::Busy,
        };
        Self::new(code, format!("The service {} {}. Nothing was done.", fault.service, fault.kind))
            .with_log_text(format!("{fault}: {}", fault.detail))
    }
}

impl From<InvalidId> for Problem {
    fn from(error: InvalidId) -> Self {
        Self::new(ProblemCode::InvalidId, format!("The id cannot be used: {error}."))
    }
}
