//! What queries have in common, whichever door they come in by.

use crate::aggregate::CallError;
use crate::contract::Problem;
use crate::query::Inquiry;

/// A rejection is an answer, and says what it reflects like any other.
pub(super) fn refusal(error: CallError, inquiry: &Inquiry) -> Problem {
    let rejected = matches!(error, CallError::Rejected(_));
    let problem = Problem::from(error);
    if rejected { problem.with_position(inquiry.reflects()) } else { problem }
}
