//! The error of a query, and the problem that a caller gets for it.

use super::invalid_arguments;
use crate::aggregate::CommandError;
use crate::contract::{Problem, ProblemCode, Violation};
use crate::error::{Chain, Fault};
use crate::log::ReadError;
use crate::model::{InvalidId, Position, Rejection, ServiceName};
use crate::projection::{Behind, ReadModelError};

/// The reason why a query got no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The service rejected the query.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The arguments do not follow the query's schema.
    #[error("the arguments do not follow the schema of the query")]
    InvalidArguments(Vec<Violation>),
    /// The text cannot be the id of an aggregate, so it has no view.
    #[error("the id cannot be used")]
    InvalidId(#[from] InvalidId),
    /// No deployed service has it. The text names it: `query lines of report`.
    #[error("there is no {0}")]
    NotDeployed(String),
    /// The log did not reach the position that the query must see: the position is that of another log, or
    /// this log was restored from a backup.
    #[error("the log is at position {reached}, not yet at {at_least}")]
    Ahead {
        /// The position that the query must see.
        at_least: Position,
        /// The position that the log has.
        reached: Position,
    },
    /// The read model did not reach the position that the query must see within the time that a query waits
    /// for it.
    #[error("the read model of {service} is behind: {behind}")]
    Behind {
        /// The service that the read model belongs to.
        service: ServiceName,
        /// The position that it has, and the one that it must have.
        behind: Behind,
    },
    /// The read model cannot be used.
    #[error(transparent)]
    ReadModel(#[from] ReadModelError),
    /// Too many queries wait. Nothing was done.
    #[error("the host's queue of queries is full")]
    Busy,
    /// The component failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The aggregate's state cannot be loaded for another reason.
    #[error(transparent)]
    View(CommandError),
}

impl QueryError {
    /// Returns the "no" behind an error, as a component gets it: a rejection of the service, or of arguments
    /// that do not follow the schema. Returns the error if it is a failure.
    pub(super) fn into_rejection(self) -> Result<Rejection, Self> {
        match self {
            Self::Rejected(rejection) => Ok(rejection),
            Self::InvalidArguments(violations) => {
                Ok(Violation::rejection(ProblemCode::InvalidArguments, "the query", &violations))
            }
            Self::InvalidId(error) => Ok(invalid_arguments(&error)),
            error => Err(error),
        }
    }

    /// Returns the text for a component that asked, without the causes that are for the host's log.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::ReadModel(error) => error.detail(),
            _ => self.to_string(),
        }
    }
}

impl From<CommandError> for QueryError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Rejected(rejection) => rejection.into(),
            CommandError::Unknown(what) => Self::NotDeployed(what),
            CommandError::Fault(fault) => fault.into(),
            CommandError::Read(error) => error.into(),
            other => Self::View(other),
        }
    }
}

impl Behind {
    pub(super) fn of(self, service: &ServiceName) -> QueryError {
        QueryError::Behind { service: service.clone(), behind: self }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let problem = match &error {
            QueryError::Rejected(rejection) => return rejection.clone().into(),
            QueryError::InvalidArguments(violations) => return Self::invalid_arguments(violations.clone()),
            QueryError::InvalidId(error) => return (*error).into(),
            QueryError::ReadModel(error) => return error.into(),
            QueryError::Fault(fault) => return fault.into(),
            QueryError::Log(error) => return error.into(),
            QueryError::View(error) => return error.clone().into(),
            QueryError::NotDeployed(what) => {
                Self::new(ProblemCode::NotDeployed, format!("There is no {what}."))
            }
            QueryError::Busy => Self::busy(),
            QueryError::Behind { service, behind: Behind { reached, at_least } } => {
                let detail =
                    format!("The read model of {service} is at position {reached}, not yet at {at_least}.");
                Self::behind(ProblemCode::ReadModelBehind, detail, *reached)
            }
            QueryError::Ahead { at_least, reached } => {
                let detail = format!(
                    "The log is at position {reached}, not yet at {at_least}. A later position is that of \
                     another host, or of a log that has been put back since."
                );
                Self::behind(ProblemCode::PositionAhead, detail, *reached)
            }
        };
        problem.with_log_text(Chain(&error).to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::error::FaultKind;
    use crate::projection::Unusable;

    fn check(error: impl Into<QueryError>, status: u16, code: &str, retry: bool) {
        let problem = Problem::from(error.into());
        let found = (problem.status().as_u16(), problem.code(), problem.is_transient());
        assert_eq!(found, (status, code, retry));
    }

    fn behind() -> QueryError {
        let (at_least, reached) = (Position::new(9), Position::new(7));
        Behind { at_least, reached }.of(&"report".into())
    }

    fn unusable() -> ReadModelError {
        ReadModelError { service: "report".into(), reason: Unusable::NotOpen }
    }

    fn unreadable() -> ReadError {
        ReadError(Arc::new(std::io::Error::other("disk is gone")))
    }

    fn fault(kind: FaultKind) -> Fault {
        let (call, detail) = ("answer lines".to_owned(), "secret backtrace".to_owned());
        Fault { service: "report".into(), call, kind, detail }
    }

    #[test]
    fn an_error_of_the_caller_is_not_worth_a_retry() {
        check(QueryError::NotDeployed("query lines of report".to_owned()), 404, "not-deployed", false);
        check(InvalidId, 400, "invalid-id", false);
        check(Rejection::new("not-found", "No."), 404, "not-found", false);
        check(Rejection::new("invalid-arguments", "No."), 422, "invalid-arguments", false);
    }

    #[test]
    fn a_component_that_asks_for_the_view_of_no_id_is_rejected() {
        let rejection = QueryError::from(InvalidId).into_rejection().unwrap();
        assert_eq!(rejection.code, "invalid-arguments");
        assert!(rejection.message.starts_with("The arguments cannot be read: an id has"), "{rejection}");
    }

    #[test]
    fn an_error_that_passes_is_worth_a_retry() {
        let (at_least, reached) = (Position::new(9), Position::new(7));
        check(QueryError::Busy, 503, "busy", true);
        check(unreadable(), 503, "log-unavailable", true);
        check(unusable(), 503, "read-model-unavailable", true);
        check(behind(), 504, "read-model-behind", true);
        check(QueryError::Ahead { at_least, reached }, 504, "position-ahead", true);
    }

    #[test]
    fn each_kind_of_fault_has_its_code() {
        check(fault(FaultKind::Trap), 500, "component-trapped", false);
        check(fault(FaultKind::Timeout), 504, "component-timeout", false);
    }

    #[test]
    fn a_view_and_a_query_have_the_same_problems() {
        check(CommandError::Unknown("aggregate order".to_owned()), 404, "not-deployed", false);
        check(CommandError::Read(unreadable()), 503, "log-unavailable", true);
        check(CommandError::Fault(fault(FaultKind::Memory)), 500, "component-out-of-memory", false);
        check(CommandError::ShuttingDown, 503, "shutting-down", true);
    }

    fn body(problem: &Problem) -> Value {
        serde_json::from_slice(&problem.body()).unwrap()
    }

    #[test]
    fn a_read_model_that_is_behind_says_how_far_it_is() {
        let body = body(&behind().into());
        assert_eq!((&body["position"], &body["status"]), (&json!(7), &json!(504)));
        assert_eq!(body["detail"], "The read model of report is at position 7, not yet at 9.");
    }

    #[test]
    fn a_component_that_asks_learns_why_a_read_model_cannot_be_used() {
        let text = "the read model of report cannot be used: it is not there yet";
        assert_eq!(QueryError::from(unusable()).detail(), text);
    }
}
