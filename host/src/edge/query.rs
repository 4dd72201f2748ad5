//! Queries over HTTP and NATS: the parts that both have in common.

use crate::aggregate::CallError;
use crate::contract::Problem;
use crate::query::Inquiry;

/// Returns the problem of a query without an answer. A rejection is an answer, and carries its position like
/// any other.
pub(super) fn refusal(error: CallError, inquiry: &Inquiry) -> Problem {
    let rejected = matches!(error, CallError::Rejected(_));
    let problem = Problem::from(error);
    if rejected { problem.with_position(inquiry.reflects()) } else { problem }
}
