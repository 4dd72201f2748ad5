//! The errors of the stream of deployments.

use crate::contract::Problem;
use crate::error::Chain;
use crate::log::{AppendError, ReadError};
use crate::model::Version;

/// The reason why deployments cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event is not one of a deployment.
    #[error("version {version} of the stream of deployments is damaged")]
    Format {
        /// The version of the stream.
        version: Version,
        /// The cause.
        source: serde_json::Error,
    },
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        match &error {
            HistoryError::Read(error) => error.into(),
            HistoryError::Format { .. } => Self::internal().with_log_text(Chain(&error).to_string()),
        }
    }
}

/// The reason why a deployment is not in the log.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The deployments before it cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Another host that shares the log was first. This one is about to see it.
    #[error("another host has deployed something at the same time")]
    Conflict,
    /// The event cannot be written as JSON.
    #[error("the event of the deployment has no JSON form")]
    Encode(#[source] serde_json::Error),
    /// The log does not take the event.
    #[error(transparent)]
    Append(AppendError),
}

impl From<AppendError> for RecordError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict { .. } => Self::Conflict,
            other => Self::Append(other),
        }
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        match &error {
            RecordError::Append(error) => error.into(),
            RecordError::History(_) | RecordError::Conflict | RecordError::Encode(_) => {
                Self::internal().with_log_text(Chain(&error).to_string())
            }
        }
    }
}
