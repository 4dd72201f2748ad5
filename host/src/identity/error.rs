//! The reasons why a caller is not identified, and the problems that they become.

use crate::contract::{Problem, ProblemCode};

/// The reason why the evidence of a request identifies nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIdentified {
    /// The text is no token of any kind.
    #[error("the token is neither one of Kontor's own nor a JWT")]
    NoToken,
}

impl From<NotIdentified> for Problem {
    fn from(error: NotIdentified) -> Self {
        Self::new(ProblemCode::InvalidToken, format!("The caller is not identified: {error}."))
    }
}
