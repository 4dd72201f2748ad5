//! The problems that a client gets when the log cannot be written or read.

use hyper::StatusCode;

use super::{AppendError, ReadError};
use crate::contract::Problem;
use crate::error::Chain;

impl From<&AppendError> for Problem {
    fn from(error: &AppendError) -> Self {
        let problem = match error {
            AppendError::Busy => return Self::busy(),
            AppendError::Conflict { .. } | AppendError::Duplicate { .. } => {
                Self::unavailable("conflict", "Others change the same aggregate too often. Nothing was done.")
            }
            AppendError::TooLarge(_) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "events-too-large",
                format!("{}. Nothing was done.", Chain(error)),
            ),
            // Not logged for each command: the host logs once that the log is unavailable.
            AppendError::Unavailable => {
                let detail =
                    "The log takes no commands at the moment. Nothing was done; queries are answered.";
                return Self::unavailable("log-unavailable", detail).unlogged();
            }
            AppendError::Failed(_) => Self::unavailable(
                "log-unavailable",
                "The log cannot be written, and whether the command took effect is not known. It is safe to \
                 send it again with its Idempotency-Key.",
            ),
        };
        problem.with_log_text(Chain(error).to_string())
    }
}

impl From<&ReadError> for Problem {
    fn from(error: &ReadError) -> Self {
        Self::unavailable("log-unavailable", "The log cannot be read.")
            .with_log_text(Chain(error).to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        (&error).into()
    }
}
