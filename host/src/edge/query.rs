//! The part that queries over HTTP and NATS share.

use crate::contract::Problem;
use crate::query::{Inquiry, QueryError};

/// Returns the problem for an error. A rejection is an answer, so it states the position that it reflects.
pub(super) fn refusal(error: QueryError, inquiry: &Inquiry) -> Problem {
    let rejected = matches!(error, QueryError::Rejected(_));
    let problem = Problem::from(error);
    if rejected { problem.reflecting(inquiry.reflects()) } else { problem }
}
