//! Every error that leaves the edge, by whichever door: a problem (RFC 9457) with a stable `code`.

use std::error::Error;
use std::fmt::Write as _;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Serialize;

use super::schema::Violation;
use crate::deploy::Report;
use crate::error::{CallError, Fault, FaultKind, with_causes};
use crate::log::{AppendError, ReadError};
use crate::model::{InvalidId, Json, Position, Rejection, Version};

/// The content type of a problem's body.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

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
    /// What the gates of a deployment found.
    report: Option<Report>,
    versions: Option<Versions>,
    /// How far a query could have seen.
    reached: Option<Position>,
    /// The position in the log that the refusal reflects at least, if it was decided on what is in the log.
    reflects: Option<Position>,
    /// The methods that the path knows (405).
    allow: Option<HeaderValue>,
    /// Whether the same request may well succeed in a second.
    retry: bool,
    /// What the log is to say; the caller never sees it.
    cause: Option<CallError>,
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
    report: Option<&'a Report>,
    #[serde(flatten)]
    versions: Option<Versions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: impl Into<String>, detail: impl Into<String>) -> Self {
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
            cause: None,
        }))
    }

    pub(super) fn invalid_header(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-header", detail)
    }

    pub(super) fn invalid_parameter(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub(super) fn method_not_allowed(allow: HeaderValue) -> Self {
        let detail = format!("This path knows {}.", allow.to_str().unwrap_or_default());
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail);
        problem.0.allow = Some(allow);
        problem
    }

    /// The text did not follow its schema.
    pub(super) fn violations(code: &'static str, detail: &str, errors: Vec<Violation>) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
        problem.0.errors = errors;
        problem
    }

    /// A gate refused a deployment.
    pub(super) fn gate_refused(report: Report) -> Self {
        let detail = format!("Nothing was changed: {}.", report.why_refused().unwrap_or_default());
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "gate-refused", detail);
        problem.0.report = Some(report);
        problem
    }

    pub(super) fn version_mismatch(expected: Option<Version>, actual: Version) -> Self {
        let detail = match expected {
            Some(expected) => format!("The aggregate is at version {actual}, not {expected}."),
            None => "The aggregate does not exist.".to_owned(),
        };
        let mut problem = Self::new(StatusCode::PRECONDITION_FAILED, "version-mismatch", detail);
        problem.0.versions = Some(Versions { expected_version: expected, actual_version: actual });
        problem
    }

    pub(super) fn too_large(what: &str, most: usize) -> Self {
        let detail = format!("{what} may have {most} bytes at most.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", detail)
    }

    /// Something in the host itself went wrong.
    pub(crate) fn internal() -> Self {
        let detail = "The host failed to answer. Its log says why.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(super) fn unavailable(code: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.0.retry = true;
        problem
    }

    /// What is waited for has only come to a position in the allotted time.
    fn behind(code: &str, detail: String, reached: Position) -> Self {
        let mut problem = Self::new(StatusCode::GATEWAY_TIMEOUT, code, detail);
        problem.0.reached = Some(reached);
        problem.0.retry = true;
        problem
    }

    /// The refusal was decided on the log up to there, at least.
    pub(super) fn reflecting(mut self, position: Position) -> Self {
        self.0.reflects = Some(position);
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) fn code(&self) -> &str {
        &self.0.code
    }

    /// See [`Problem::reflecting`].
    pub(super) fn reflects(&self) -> Option<Position> {
        self.0.reflects
    }

    /// The methods that the path knows, if it does not know this one.
    pub(super) fn allow(&self) -> Option<&HeaderValue> {
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

    /// Whether the host has failed, and has not said so once for all requests.
    pub(super) fn is_to_be_logged(&self) -> bool {
        let away = matches!(self.0.cause, Some(CallError::Append(AppendError::Away)));
        self.status().is_server_error() && !away
    }

    /// The whole chain of causes, for the log.
    pub(super) fn log_text(&self) -> String {
        let Some(cause) = &self.0.cause else {
            return self.0.detail.clone();
        };
        let mut text = cause.to_string();
        if let CallError::Fault(fault) = cause {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {}", fault.detail);
        }
        let mut source = cause.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        text
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let mut problem = match &error {
            CallError::Rejected(rejection) => return Self::from(rejection.clone()),
            CallError::VersionMismatch { expected, actual, .. } => {
                return Self::version_mismatch(Some(*expected), *actual);
            }
            CallError::Unknown(what) => {
                Self::new(StatusCode::NOT_FOUND, "not-deployed", format!("There is no {what}."))
            }
            CallError::KeyReused { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The Idempotency-Key has been used for another command or payload.",
            ),
            CallError::Busy { .. } | CallError::Append(AppendError::Busy) => {
                Self::unavailable("busy", "The host has as much work as it takes on. Nothing was done.")
            }
            CallError::ShuttingDown => {
                Self::unavailable("shutting-down", "The host is shutting down. Nothing was done.")
            }
            CallError::Fault(fault) => Self::of_fault(fault),
            CallError::Append(AppendError::Conflict { .. } | AppendError::Duplicate { .. }) => {
                Self::unavailable("conflict", "Others change the same aggregate too often. Nothing was done.")
            }
            CallError::Append(AppendError::TooLarge(_)) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "events-too-large",
                format!("{}. Nothing was done.", with_causes(&error)),
            ),
            CallError::Append(AppendError::Away) => Self::unavailable(
                "log-unavailable",
                "The log takes no commands at the moment. Nothing was done; queries are answered.",
            ),
            CallError::Append(AppendError::Unavailable(_)) => Self::unavailable(
                "log-unavailable",
                "The log cannot be written, and whether the command took effect is not known. It is safe to send it \
                 again with its Idempotency-Key.",
            ),
            CallError::Read(_) => Self::unavailable("log-unavailable", "The log cannot be read."),
            CallError::ReadModel { .. } => Self::unavailable("read-model-unavailable", format!("{error}.")),
            CallError::NotCaughtUp { service, at_least, reached } => {
                let detail =
                    format!("The read model of {service} is at position {reached}, not yet at {at_least}.");
                Self::behind("read-model-behind", detail, *reached)
            }
            CallError::Ahead { at_least, reached } => {
                let detail = format!(
                    "The log is at position {reached}, not yet at {at_least}. A later position is that of another host, or \
                     of a log that has been put back since."
                );
                Self::behind("position-ahead", detail, *reached)
            }
        };
        problem.0.cause = Some(error);
        problem
    }
}

impl Problem {
    fn of_fault(fault: &Fault) -> Self {
        let (status, code) = match fault.kind {
            FaultKind::Trap => (StatusCode::INTERNAL_SERVER_ERROR, "component-trapped"),
            FaultKind::Memory => (StatusCode::INTERNAL_SERVER_ERROR, "component-out-of-memory"),
            FaultKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "component-timeout"),
            FaultKind::Contract => (StatusCode::BAD_GATEWAY, "component-broke-contract"),
        };
        Self::new(status, code, format!("The service {} {}. Nothing was done.", fault.service, fault.kind))
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

impl From<InvalidId> for Problem {
    fn from(error: InvalidId) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-id", format!("The id cannot be used: {error}."))
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        CallError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::{CommandId, StreamId};

    fn stream() -> StreamId {
        StreamId::new("order", "1").unwrap()
    }

    fn fault(kind: FaultKind) -> CallError {
        let detail = "secret backtrace".to_owned();
        Fault { service: "order".into(), call: "decide order.create".to_owned(), kind, detail }.into()
    }

    fn broken_disk() -> Arc<dyn Error + Send + Sync> {
        Arc::new(std::io::Error::other("disk is gone"))
    }

    fn behind() -> CallError {
        CallError::NotCaughtUp {
            service: "report".into(),
            at_least: Position::new(9),
            reached: Position::new(7),
        }
    }

    fn check(error: impl Into<CallError>, status: u16, code: &str, retry: bool) {
        let problem = Problem::from(error.into());
        let found = (problem.status().as_u16(), problem.code(), problem.0.retry);
        assert_eq!(found, (status, code, retry));
    }

    #[test]
    fn a_no_of_the_service_keeps_its_code() {
        for (code, status) in [
            ("order-not-confirmed", 409),
            ("already-exists", 409),
            ("unknown-product", 409),
            ("not-found", 404),
            ("invalid-payload", 422),
            ("invalid-arguments", 422),
        ] {
            let (code, message) = (code.to_owned(), "No.".to_owned());
            let rejection = Rejection { code: code.clone(), message, details: None };
            check(rejection, status, &code, false);
        }
    }

    #[test]
    fn what_the_caller_got_wrong_is_not_worth_a_repetition() {
        let mismatch = CallError::VersionMismatch {
            stream: stream(),
            expected: Version::new(7),
            actual: Version::new(9),
        };
        check(mismatch, 412, "version-mismatch", false);
        check(CallError::Unknown("the command order.creat".to_owned()), 404, "not-deployed", false);
        check(CallError::KeyReused { stream: stream() }, 422, "idempotency-key-reused", false);
    }

    #[test]
    fn what_will_pass_is_worth_a_repetition() {
        let conflict =
            AppendError::Conflict { stream: stream(), expected: Version::new(1), actual: Version::new(2) };
        let duplicate = AppendError::Duplicate { stream: stream(), command: CommandId::from_key("k") };
        let read_model = CallError::ReadModel { service: "report".into(), reason: "it is behind".to_owned() };
        check(CallError::Busy { queue: "the log" }, 503, "busy", true);
        check(AppendError::Busy, 503, "busy", true);
        check(CallError::ShuttingDown, 503, "shutting-down", true);
        check(conflict, 503, "conflict", true);
        check(duplicate, 503, "conflict", true);
        check(AppendError::Away, 503, "log-unavailable", true);
        check(AppendError::Unavailable(broken_disk()), 503, "log-unavailable", true);
        check(ReadError(broken_disk()), 503, "log-unavailable", true);
        check(read_model, 503, "read-model-unavailable", true);
        check(behind(), 504, "read-model-behind", true);
        check(
            CallError::Ahead { at_least: Position::new(9), reached: Position::new(7) },
            504,
            "position-ahead",
            true,
        );
    }

    #[test]
    fn each_kind_of_fault_has_its_code() {
        for (kind, status, code) in [
            (FaultKind::Trap, 500, "component-trapped"),
            (FaultKind::Memory, 500, "component-out-of-memory"),
            (FaultKind::Timeout, 504, "component-timeout"),
            (FaultKind::Contract, 502, "component-broke-contract"),
        ] {
            check(fault(kind), status, code, false);
        }
    }

    fn body(problem: &Problem) -> Value {
        serde_json::from_slice(&problem.body()).unwrap()
    }

    #[test]
    fn a_rejection_keeps_its_message_and_details() {
        let details = Some(Json::parse(r#"{"available":3}"#.to_owned()).unwrap());
        let rejection =
            Rejection { code: "insufficient-stock".to_owned(), message: "Only 3 left.".to_owned(), details };
        let expected = json!({
            "type": "about:blank", "title": "Conflict", "status": 409, "detail": "Only 3 left.",
            "code": "insufficient-stock", "details": {"available": 3},
        });
        assert_eq!(body(&rejection.into()), expected);
    }

    #[test]
    fn a_read_model_that_is_behind_says_how_far_it_is() {
        let body = body(&behind().into());
        assert_eq!((&body["position"], &body["status"]), (&json!(7), &json!(504)));
        assert_eq!(body["detail"], "The read model of report is at position 7, not yet at 9.");
    }

    #[test]
    fn a_version_mismatch_names_both_versions() {
        let body = body(&Problem::version_mismatch(Some(Version::new(7)), Version::new(9)));
        assert_eq!((&body["expected_version"], &body["actual_version"]), (&json!(7), &json!(9)));
    }

    #[test]
    fn the_backtrace_goes_to_the_log_and_not_to_the_caller() {
        let problem = Problem::from(fault(FaultKind::Trap));
        assert_eq!(problem.log_text(), "order trapped in decide order.create: secret backtrace");
        assert!(!body(&problem).to_string().contains("secret"));
    }

    #[test]
    fn the_log_gets_the_whole_chain_once() {
        let problem = Problem::from(CallError::Read(ReadError(broken_disk())));
        assert_eq!(problem.log_text(), "the log cannot be read: disk is gone");
    }
}
