//! The body of a request: read within its limits, or taken off the line.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::{HeaderMap, header};
use futures::StreamExt as _;

use super::HttpLimits;
use super::headers;
use crate::contract::{Problem, ProblemCode};

/// The most that is taken off the line of a body that nobody reads: what somebody may send by mistake.
const DISCARDED_BYTES: usize = 64 << 20;
/// How long that may take.
const DISCARDING: Duration = Duration::from_secs(5);

/// Reads the body of a command, within the limits of size and time.
pub(super) async fn read(
    limits: &HttpLimits,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<Vec<u8>, Problem> {
    if !headers::content_is_json(headers) {
        let detail = "The body of a command is JSON: send it as application/json.";
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    }
    in_time(limits.body_read, collect(limits.body_bytes, headers, body)).await
}

/// The whole body, if it has no more than `most` bytes.
pub(super) async fn collect(
    most: usize,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<Vec<u8>, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    if announced > most {
        return Err(Problem::too_large("The body", most));
    }
    let mut bytes = Vec::with_capacity(announced);
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|_| broken_off())?);
        if bytes.len() > most {
            return Err(Problem::too_large("The body", most));
        }
    }
    Ok(bytes)
}

/// What is made of a body that has to arrive within a time.
pub(super) async fn in_time<T>(
    limit: Duration,
    arrival: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(limit, arrival).await.unwrap_or_else(|_| {
        let detail = "The body did not arrive in time.";
        Err(Problem::new(ProblemCode::BodyTimeout, detail))
    })
}

pub(super) fn broken_off() -> Problem {
    Problem::new(ProblemCode::IncompleteBody, "The body broke off.")
}

/// Takes what is left of a body off the line before its request is refused. A client that is cut off while it still
/// sends would see a broken connection and not why.
pub(super) async fn discard(headers: &HeaderMap, body: &mut BodyDataStream) {
    if headers.contains_key(header::EXPECT) {
        // It waits to be told whether to send it, and is told not to.
        return;
    }
    let discard = async {
        let mut left = DISCARDED_BYTES;
        while let Some(Ok(chunk)) = body.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // Err: it takes too long, and the client has to do with less.
    let _ = tokio::time::timeout(DISCARDING, discard).await;
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn a_body_has_a_largest_size_announced_or_not() {
        let limits = HttpLimits { body_bytes: 10, ..HttpLimits::default() };
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from_static("11"))]);
        for (headers, body, expected) in [
            (HeaderMap::new(), "0123456789", Ok(10)),
            (HeaderMap::new(), "01234567890", Err("payload-too-large".to_owned())),
            (announced, "", Err("payload-too-large".to_owned())),
        ] {
            let read = read(&limits, &headers, &mut Body::from(body).into_data_stream()).await;
            assert_eq!(read.map(|bytes| bytes.len()).map_err(|problem| problem.code().to_owned()), expected);
        }
    }

    #[tokio::test]
    async fn a_refused_body_is_taken_off_the_line_unless_the_client_waits_with_it() {
        let expecting = HeaderMap::from_iter([(header::EXPECT, HeaderValue::from_static("100-continue"))]);
        for (headers, taken) in [(HeaderMap::new(), true), (expecting, false)] {
            let mut body = Body::from("a body").into_data_stream();
            discard(&headers, &mut body).await;
            assert_eq!(body.next().await.is_none(), taken);
        }
    }
}
