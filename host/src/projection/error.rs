//! The errors of read models, and the problems that a caller gets for them.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use tokio::task::JoinError;

use crate::contract::{Problem, ProblemCode};
use crate::error::{Chain, Fault};
use crate::log::ReadError;
use crate::model::{Position, QueryName, Rejection, ServiceName};

/// The reason why the read databases cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionsError {
    /// The manifest's schema is not SQL that SQLite runs.
    #[error("SQLite does not take the schema of {service}'s read model")]
    Schema {
        /// The service whose schema it is.
        service: ServiceName,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A file cannot be opened, made or written.
    #[error("the read database {} cannot be used", file.display())]
    Database {
        /// The database.
        file: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The log cannot be asked whether a database is of it.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The directory cannot be made or listed, or a file in it cannot be removed.
    #[error("the directory {} cannot be used for read databases", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The error of a read model that has not reached the position that it must have for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is at position {reached}, not yet at {at_least}")]
pub struct Behind {
    /// The position that the read model has.
    pub reached: Position,
    /// The position that the caller waited for, or from which on the read model is complete, if that is
    /// later.
    pub at_least: Position,
}

/// The error of a read model that cannot be used now. Another attempt may succeed.
#[derive(Debug, thiserror::Error)]
#[error("the read model of {service} cannot be used")]
pub struct ReadModelError {
    /// The service that the read model belongs to.
    pub service: ServiceName,
    /// The cause.
    #[source]
    pub reason: Unusable,
}

/// The reason why a read model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The service has just been deployed, and its read database is not open yet.
    #[error("it is not there yet")]
    NotOpen,
    /// Queries still get answers of the version before, which does not have this query.
    #[error("it has no {0} before its new version is built")]
    NoSuchQuery(QueryName),
    /// SQLite failed in a statement of the host.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// SQLite failed in a statement of the component.
    #[error("{0:?}")]
    Statement(ErrorCode),
    /// The thread that read the database ended without an answer.
    #[error("the query was broken off: {0}")]
    BrokenOff(JoinError),
    /// The projection stopped during the request of an operator.
    #[error("it was interrupted; what it has done stands, and the rest can be asked for again")]
    Interrupted,
}

impl ReadModelError {
    /// Returns the text for a caller, which names the reason, but not the causes behind it.
    pub(crate) fn detail(&self) -> String {
        format!("{self}: {}", self.reason)
    }
}

impl From<&ReadModelError> for Problem {
    fn from(error: &ReadModelError) -> Self {
        Self::new(ProblemCode::ReadModelUnavailable, format!("{}.", error.detail()))
            .with_log_text(Chain(error).to_string())
    }
}

/// The reason why a request of an operator failed.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The request names nothing that exists, or cannot be granted now.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too many requests wait for the same read model. Nothing was done.
    #[error("the queue of a read model's operators is full")]
    Busy,
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The read model cannot be used.
    #[error(transparent)]
    ReadModel(#[from] ReadModelError),
}

impl From<OperateError> for Problem {
    fn from(error: OperateError) -> Self {
        match &error {
            OperateError::Rejected(rejection) => Self::of_host(rejection.clone()),
            OperateError::Busy => Self::busy().with_log_text(error.to_string()),
            OperateError::Log(error) => error.into(),
            OperateError::ReadModel(error) => error.into(),
        }
    }
}

/// The reason why a [`Standalone`](super::Standalone) service gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The service rejected the query.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The component failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The read model cannot be used.
    #[error(transparent)]
    ReadModel(#[from] ReadModelError),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn check(error: OperateError, status: u16, code: &str, retry: bool) {
        let problem = Problem::from(error);
        let found = (problem.status().as_u16(), problem.code(), problem.is_transient());
        assert_eq!(found, (status, code, retry));
    }

    fn interrupted() -> ReadModelError {
        ReadModelError { service: "report".into(), reason: Unusable::Interrupted }
    }

    #[test]
    fn each_error_of_an_operators_request_has_its_problem() {
        check(Rejection::new("not-found", "No.").into(), 404, "not-found", false);
        check(Rejection::new("replay-under-way", "No.").into(), 409, "replay-under-way", false);
        check(OperateError::Busy, 503, "busy", true);
        let broken_disk = Arc::new(io::Error::other("disk is gone"));
        check(ReadError(broken_disk).into(), 503, "log-unavailable", true);
        check(interrupted().into(), 503, "read-model-unavailable", true);
    }

    #[test]
    fn the_caller_and_the_log_learn_why_a_read_model_cannot_be_used() {
        let text = "the read model of report cannot be used: it was interrupted; what it has done stands, \
                    and the rest can be asked for again";
        let problem = Problem::from(&interrupted());
        let body: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
        assert_eq!(body["detail"], format!("{text}."));
        assert_eq!(problem.log_text(), text);
    }
}
