//! The reasons why a command has no answer, or a rejection, and the problems that clients get for them.

use crate::contract::{Problem, ProblemCode, Violation};
use crate::error::{Chain, Fault};
use crate::log::{AppendError, ReadError};
use crate::model::{Rejection, StreamId, Version};

/// The reason why a command was not executed. Queries, sagas and read models share it until they have their
/// own.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommandError {
    /// The service rejected it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The payload does not follow the command's schema.
    #[error("the payload does not follow the schema of the command")]
    InvalidPayload(Vec<Violation>),
    /// No deployed service has it. The text names it: "the command order.creat".
    #[error("there is no {0}")]
    Unknown(String),
    /// The aggregate is at another version than the caller wants.
    #[error("{stream} is at version {actual}, which is not wanted")]
    VersionMismatch {
        /// The aggregate's stream.
        stream: StreamId,
        /// The version that the caller wants, if it is one.
        expected: Option<Version>,
        /// The version of the aggregate.
        actual: Version,
    },
    /// The command id was used before, for another command or payload.
    #[error("the idempotency key has been used for another command on {stream}")]
    KeyReused {
        /// The aggregate's stream.
        stream: StreamId,
    },
    /// A bounded queue is full. Nothing was done.
    #[error("{queue} is full")]
    Busy {
        /// The name of the queue.
        queue: &'static str,
    },
    /// The host accepts no more commands.
    #[error("the host is shutting down")]
    ShuttingDown,
    /// The component failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The events were not appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl CommandError {
    /// Returns the "no" behind an error, as a saga gets it for a step: a rejection of the service, or of a
    /// payload that does not follow the schema. Returns the error if it is a failure.
    pub(crate) fn into_rejection(self) -> Result<Rejection, Self> {
        match self {
            Self::Rejected(rejection) => Ok(rejection),
            Self::InvalidPayload(violations) => {
                Ok(Violation::rejection(ProblemCode::InvalidPayload, "the command", &violations))
            }
            error => Err(error),
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let problem = match &error {
            CommandError::Rejected(rejection) => return Self::from(rejection.clone()),
            CommandError::VersionMismatch { expected, actual, .. } => {
                return Problem::version_mismatch(*expected, *actual);
            }
            CommandError::InvalidPayload(violations) => return Problem::invalid_payload(violations.clone()),
            CommandError::Unknown(what) => {
                Problem::new(ProblemCode::NotDeployed, format!("There is no {what}."))
            }
            CommandError::KeyReused { .. } => Problem::new(
                ProblemCode::IdempotencyKeyReused,
                "The Idempotency-Key has been used for another command or payload.",
            ),
            CommandError::Busy { .. } => Problem::busy(),
            CommandError::ShuttingDown => Problem::shutting_down(),
            CommandError::Fault(fault) => return fault.into(),
            CommandError::Append(error) => return error.into(),
            CommandError::Read(error) => return error.into(),
        };
        problem.with_log_text(Chain(&error).to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::error::FaultKind;
    use crate::model::{CommandId, Json, StreamId};

    fn stream() -> StreamId {
        StreamId::new("order", "1").unwrap()
    }

    fn fault(kind: FaultKind) -> CommandError {
        let detail = "secret backtrace".to_owned();
        Fault { service: "order".into(), call: "decide order.create".to_owned(), kind, detail }.into()
    }

    fn broken_disk() -> Arc<dyn Error + Send + Sync> {
        Arc::new(std::io::Error::other("disk is gone"))
    }

    fn check(error: impl Into<CommandError>, status: u16, code: &str, retry: bool) {
        let problem = Problem::from(error.into());
        let found = (problem.status().as_u16(), problem.code(), problem.is_transient());
        assert_eq!(found, (status, code, retry));
    }

    #[test]
    fn a_rejection_keeps_its_code() {
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
    fn a_mistake_of_the_caller_is_not_worth_a_retry() {
        let mismatch = CommandError::VersionMismatch {
            stream: stream(),
            expected: Some(Version::new(7)),
            actual: Version::new(9),
        };
        check(mismatch, 412, "version-mismatch", false);
        check(CommandError::Unknown("the command order.creat".to_owned()), 404, "not-deployed", false);
        check(CommandError::KeyReused { stream: stream() }, 422, "idempotency-key-reused", false);
    }

    #[test]
    fn a_failure_that_passes_is_worth_a_retry() {
        let conflict =
            AppendError::Conflict { stream: stream(), expected: Version::new(1), actual: Version::new(2) };
        let duplicate = AppendError::Duplicate { stream: stream(), command: CommandId::from_key("k") };
        check(CommandError::Busy { queue: "the log" }, 503, "busy", true);
        check(AppendError::Busy, 503, "busy", true);
        check(CommandError::ShuttingDown, 503, "shutting-down", true);
        check(conflict, 503, "conflict", true);
        check(duplicate, 503, "conflict", true);
        check(AppendError::Unavailable, 503, "log-unavailable", true);
        check(AppendError::Discarded, 503, "log-unavailable", true);
        check(AppendError::Fenced { stream: stream() }, 503, "log-unavailable", true);
        check(AppendError::Unfounded, 503, "log-unavailable", true);
        check(AppendError::Failed(broken_disk()), 503, "log-unavailable", true);
        check(ReadError(broken_disk()), 503, "log-unavailable", true);
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
        check(fault(FaultKind::Busy), 503, "busy", true);
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
        let problem = Problem::from(CommandError::Read(ReadError(broken_disk())));
        assert_eq!(problem.log_text(), "the log cannot be read: disk is gone");
    }
}
