//! The errors of deployments.

use std::io;
use std::sync::Arc;

use super::report::Report;
use crate::deployed::RecordError;
use crate::log::ReadError;
use crate::model::Rejection;

/// The reason why nothing was deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A gate refused a component.
    #[error("{}", .0.why_refused().unwrap_or_default())]
    Refused(Box<Report>),
    /// Another deployment is in progress, here or on another host.
    #[error("another deployment is in progress: try again when it has ended")]
    UnderWay,
    /// This host cannot follow the last deployment of another host. The text says why.
    #[error("{0}")]
    Behind(Arc<String>),
    /// The request does not fit what runs.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The host is shutting down.
    #[error("the host is shutting down")]
    ShuttingDown,
    /// The component cannot be written to disk, or to the store that the hosts share.
    #[error("the component cannot be kept in the data directory")]
    Store(#[source] io::Error),
    /// The deployment cannot be recorded.
    #[error(transparent)]
    Record(RecordError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<RecordError> for DeployError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Conflict => Self::UnderWay,
            other => Self::Record(other),
        }
    }
}
