//! Queries over HTTP and NATS: the parts that both have in common.

use crate::contract::Problem;
use crate::query::{Inquiry, QueryError};

/// Returns the problem of a query without an answer. A rejection is an answer, and carries its position like
/// any other.
pub(super) fn refusal(error: QueryError, inquiry: &Inquiry) -> Problem {
    let rejected = matches!(error, QueryError::Rejected(_));
    let problem = Problem::from(error);
    if rejected { problem.with_position(inquiry.reflects()) } else { problem }
}
