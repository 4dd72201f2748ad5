//! Requests that were denied: counted, and logged at a bounded rate. Anybody can cause them, so they must
//! neither fill the host's log nor hide in it.

use std::fmt::Display;

use hyper::StatusCode;

use super::caller_limits::Sender;
use super::log_rate::LogRate;
use crate::contract::Problem;
use crate::telemetry;

/// The reason why a request was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
enum DeniedReason {
    /// The caller has not signed in, or its token is not valid: 401.
    NotSignedIn,
    /// The caller has none of the roles: 403.
    NoRole,
    /// The caller, or its address, has sent too many: 429.
    RateLimited,
}

impl DeniedReason {
    /// Returns the reason behind a status; `None`: a request with it was not denied.
    fn of(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::UNAUTHORIZED => Some(Self::NotSignedIn),
            StatusCode::FORBIDDEN => Some(Self::NoRole),
            StatusCode::TOO_MANY_REQUESTS => Some(Self::RateLimited),
            _ => None,
        }
    }
}

/// Returns the problem of a request. One that was denied is counted, and logged if there are not too many.
/// `request`: the method and the path, or the subject.
pub(super) fn note(problem: Problem, sender: impl FnOnce() -> Sender, request: impl Display) -> Problem {
    static RATE: LogRate = LogRate::new();
    let Some(reason) = DeniedReason::of(problem.status()) else { return problem };
    let reason: &'static str = reason.into();
    metrics::counter!(telemetry::DENIED, "reason" => reason).increment(1);
    if let Some(left_out) = RATE.admit() {
        let who = sender();
        tracing::warn!(reason, %who, %request, left_out, "denied a request; it had no effect");
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_are_those_of_the_reference() {
        let reasons = [DeniedReason::NotSignedIn, DeniedReason::NoRole, DeniedReason::RateLimited];
        let names: [&'static str; 3] = reasons.map(Into::into);
        assert_eq!(names, ["not-signed-in", "no-role", "rate-limited"]);
    }
}
