//! A problem as an HTTP response.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::headers;
use crate::contract::{PROBLEM_JSON, Problem};

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        // A problem may have passed a moment later.
        headers.insert(header::CACHE_CONTROL, headers::NO_STORE);
        headers.extend(self.reflects().map(|position| (headers::POSITION, position.get().into())));
        headers.extend(self.challenge().map(|challenge| (header::WWW_AUTHENTICATE, challenge)));
        headers.extend(self.retry_after_s().map(|seconds| (header::RETRY_AFTER, seconds.into())));
        headers.extend(self.accept_encoding().map(|accepted| (header::ACCEPT_ENCODING, accepted)));
        headers.extend(self.allow().map(|allow| (header::ALLOW, allow.clone())));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::ProblemCode;
    use crate::model::Position;

    #[test]
    fn a_caller_that_is_not_identified_learns_how_to_be() {
        for (code, expected) in [
            (ProblemCode::Unauthenticated, Some("Bearer realm=\"kontor\"")),
            (ProblemCode::InvalidToken, Some("Bearer realm=\"kontor\", error=\"invalid_token\"")),
            (ProblemCode::Forbidden, None),
        ] {
            let response = Problem::new(code, "No.").into_response();
            let challenge = response.headers().get("www-authenticate");
            assert_eq!(challenge.map(|value| value.to_str().unwrap()), expected, "{code:?}");
        }
    }

    #[test]
    fn a_problem_has_its_media_type_its_position_and_the_time_to_retry() {
        for (problem, retry_after) in [
            (Problem::new(ProblemCode::Busy, "Not now."), Some("1")),
            (Problem::new(ProblemCode::TooManyCommands, "Too many.").with_retry_after(7), Some("7")),
            (Problem::not_found("There is none."), None),
        ] {
            let response = problem.with_position(Position::new(7)).into_response();
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header("content-type"), Some("application/problem+json"));
            assert_eq!((header("kontor-position"), header("retry-after")), (Some("7"), retry_after));
        }
    }
}
