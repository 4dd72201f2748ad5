//! The problems that a client gets when the log cannot be written or read.

use super::{AppendError, ReadError};
use crate::contract::{Problem, ProblemCode};
use crate::error::Chain;

impl From<&AppendError> for Problem {
    fn from(error: &AppendError) -> Self {
        let problem = match error {
            AppendError::Busy => return Self::busy(),
            AppendError::Conflict { .. } | AppendError::Duplicate { .. } => Self::new(
                ProblemCode::Conflict,
                "Others change the same aggregate too often. Nothing was done.",
            ),
            AppendError::TooLarge(_) => {
                Self::new(ProblemCode::EventsTooLarge, format!("{}. Nothing was done.", Chain(error)))
            }
            // Not logged for each command: the host logs once that the log is unavailable.
            AppendError::Unavailable => {
                let detail =
                    "The log takes no commands at the moment. Nothing was done; queries are answered.";
                return Self::new(ProblemCode::LogUnavailable, detail).unlogged();
            }
            AppendError::Discarded | AppendError::Unfounded | AppendError::Fenced { .. } => Self::new(
                ProblemCode::LogUnavailable,
                "The log has not taken what the command was decided on. Nothing was done.",
            ),
            AppendError::Failed(_) => Self::new(
                ProblemCode::LogUnavailable,
                "The log cannot be written, and whether the command took effect is not known. It is safe to \
                 send it again with its Idempotency-Key.",
            ),
        };
        problem.with_log_text(Chain(error).to_string())
    }
}

impl From<&ReadError> for Problem {
    fn from(error: &ReadError) -> Self {
        Self::new(ProblemCode::LogUnavailable, "The log cannot be read.")
            .with_log_text(Chain(error).to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        (&error).into()
    }
}
