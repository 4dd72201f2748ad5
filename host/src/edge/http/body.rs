//! The body of a request: read within its limits, or discarded.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::{HeaderMap, header};
use futures::StreamExt as _;

use super::HttpLimits;
use super::headers;
use crate::contract::{Problem, ProblemCode};

/// Maximum size of a body that is discarded: that of a file sent by mistake.
const DISCARDED_BYTES: usize = 64 << 20;
/// Maximum time to discard a body.
const DISCARDING: Duration = Duration::from_secs(5);

/// Reads the body of a command, within the limits of size and time.
pub(super) async fn read(
    limits: &HttpLimits,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<Vec<u8>, Problem> {
    check_encoding("The body", headers)?;
    if !headers::content_is_json(headers) {
        let detail = "The body of a command is JSON: send it as application/json.";
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    }
    in_time(limits.body_read, collect(limits.body_bytes, headers, body)).await
}

/// Fails if a content is encoded, by its headers. `subject`: the content, as the beginning of a sentence.
pub(super) fn check_encoding(subject: &str, headers: &HeaderMap) -> Result<(), Problem> {
    if !headers::content_is_encoded(headers) {
        return Ok(());
    }
    let detail = format!("{subject} is encoded: send it as it is, without Content-Encoding.");
    Err(Problem::new(ProblemCode::UnsupportedEncoding, detail))
}

/// Reads the whole body, if it has at most `limit` bytes.
pub(super) async fn collect(
    limit: usize,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<Vec<u8>, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    if announced > limit {
        return Err(Problem::too_large("The body", limit));
    }
    let mut bytes = Vec::with_capacity(announced);
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|_| broken_off())?);
        if bytes.len() > limit {
            return Err(Problem::too_large("The body", limit));
        }
    }
    Ok(bytes)
}

/// Fails if the body does not arrive within `limit`.
pub(super) async fn in_time<T>(
    limit: Duration,
    arrival: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(limit, arrival).await.unwrap_or_else(|_| {
        let detail = "The body did not arrive in time.";
        Err(Problem::new(ProblemCode::BodyTimeout, detail))
    })
}

/// Returns the problem of a body that ended early.
pub(super) fn broken_off() -> Problem {
    Problem::new(ProblemCode::IncompleteBody, "The connection ended before the body did.")
}

/// Reads the rest of a body and drops it, before its request is refused. A client that is disconnected while
/// it still sends would see a broken connection instead of the reason.
pub(super) async fn discard(headers: &HeaderMap, body: &mut BodyDataStream) {
    if headers.contains_key(header::EXPECT) {
        // The client waits for permission to send the body, and gets the refusal instead.
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
    // Err: it takes too long; the client may see a broken connection.
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
    async fn a_refused_body_is_discarded_unless_the_client_waits_for_permission() {
        let expecting = HeaderMap::from_iter([(header::EXPECT, HeaderValue::from_static("100-continue"))]);
        for (headers, discarded) in [(HeaderMap::new(), true), (expecting, false)] {
            let mut body = Body::from("a body").into_data_stream();
            discard(&headers, &mut body).await;
            assert_eq!(body.next().await.is_none(), discarded);
        }
    }
}
