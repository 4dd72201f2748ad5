//! The errors of the sagas' API, and the problem that a caller gets for each.

use super::record::RecordError;
use super::runner::RunError;
use crate::contract::{Problem, ProblemCode};
use crate::deployed::PastError;
use crate::error::Chain;
use crate::log::{AppendError, ReadError};
use crate::model::Rejection;

/// The reason why the sagas cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SagasError {
    /// The index cannot be opened or made.
    #[error("the index of sagas cannot be used")]
    Index(#[from] rusqlite::Error),
    /// A useless index cannot be removed.
    #[error("the damaged index of sagas cannot be removed")]
    Remove(#[from] std::io::Error),
    /// The log cannot be asked whether the index is of it.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// The reason why a request about sagas failed.
#[derive(Debug, thiserror::Error)]
pub enum SagaError {
    /// The saga is unknown, or in no state for the request.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A bounded queue is full. Nothing was done.
    #[error("{queue} is full")]
    Busy {
        /// The name of the queue.
        queue: &'static str,
    },
    /// The host is stopping. Nothing was done.
    #[error("the host is shutting down")]
    ShuttingDown,
    /// The log does not take the entry.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal in the log is damaged.
    #[error("the journal of the saga cannot be used")]
    Journal(#[source] RecordError),
    /// The database beside the log cannot be used.
    #[error("the index of sagas cannot be used")]
    Index(#[from] rusqlite::Error),
    /// The component that the saga runs on cannot be read now.
    #[error(transparent)]
    Component(#[from] PastError),
    /// The log lacks the event by which the saga started.
    #[error("the event that started the saga is not in the log")]
    NoTrigger,
}

impl From<RecordError> for SagaError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Read(error) => Self::Read(error),
            RecordError::Append(error) => Self::Append(error),
            RecordError::NoEntries
            | RecordError::Illegal(_)
            | RecordError::Format(_)
            | RecordError::Id(_) => Self::Journal(error),
        }
    }
}

impl From<RunError> for SagaError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Record(error) => error.into(),
            RunError::Relinquished(_) => Self::ShuttingDown,
            RunError::NoTrigger => Self::NoTrigger,
            RunError::Component(error) => Self::Component(error),
        }
    }
}

impl From<SagaError> for Problem {
    fn from(error: SagaError) -> Self {
        let unavailable = |detail| Self::new(ProblemCode::LogUnavailable, detail);
        let problem = match &error {
            SagaError::Rejected(rejection) => return Self::of_host(rejection.clone()),
            SagaError::Append(error) => return error.into(),
            SagaError::Read(error) => return error.into(),
            SagaError::Busy { .. } => Self::busy(),
            SagaError::ShuttingDown => Self::shutting_down(),
            SagaError::Journal(_) => unavailable("The journal of the saga cannot be read."),
            SagaError::Index(_) => unavailable("The index of sagas cannot be read."),
            SagaError::Component(_) => unavailable("The component of the saga cannot be read."),
            SagaError::NoTrigger => unavailable("The event that started the saga is not in the log."),
        };
        problem.with_log_text(Chain(&error).to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_failure_has_its_problem_and_names_its_cause_in_the_log() {
        let damaged = serde_json::from_str::<u8>("x").unwrap_err().to_string();
        let broken = || serde_json::from_str::<u8>("x").unwrap_err();
        let disk = || ReadError(Arc::new(std::io::Error::other("disk is gone")));
        let table: [(SagaError, u16, &str, String); 8] = [
            (Rejection::new("not-found", "No.").into(), 404, "not-found", "No.".to_owned()),
            (Rejection::new("saga-not-parked", "No.").into(), 409, "saga-not-parked", "No.".to_owned()),
            (SagaError::Busy { queue: "q" }, 503, "busy", "q is full".to_owned()),
            (SagaError::ShuttingDown, 503, "shutting-down", "the host is shutting down".to_owned()),
            (
                RecordError::Append(AppendError::Busy).into(),
                503,
                "busy",
                Problem::busy().log_text().to_owned(),
            ),
            (disk().into(), 503, "log-unavailable", "the log cannot be read: disk is gone".to_owned()),
            (
                RecordError::Format(broken()).into(),
                503,
                "log-unavailable",
                format!(
                    "the journal of the saga cannot be used: {}: {damaged}",
                    RecordError::Format(broken())
                ),
            ),
            (
                rusqlite::Error::InvalidQuery.into(),
                503,
                "log-unavailable",
                format!("the index of sagas cannot be used: {}", rusqlite::Error::InvalidQuery),
            ),
        ];
        for (error, status, code, log_text) in table {
            let problem = Problem::from(error);
            let found = (problem.status().as_u16(), problem.code(), problem.log_text());
            assert_eq!(found, (status, code, &*log_text));
        }
    }
}
