//! The two ways in which a call fails: a business "no", and a technical failure.

use std::fmt;

use crate::Rejection;

/// The failure of a call.
///
/// `?` makes one of a [`Rejection`], of an [`SqlError`](crate::db::SqlError) and of an
/// [`http::Error`](crate::http::Error); a question to another service fails with one.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// A business "no". It is an answer, never retried.
    Rejected(Rejection),
    /// A technical failure, in one sentence. The host shows the sentence and retries the call where that is
    /// safe.
    Fault(String),
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Fault(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}
