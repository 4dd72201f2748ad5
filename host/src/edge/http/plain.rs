//! HTTP without TLS at a listener that speaks TLS. Such a request is answered with a problem that says so,
//! and reaches no route: its client would see a broken connection without a reason.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body;
use crate::contract::{Problem, ProblemCode};

/// Returns whether a connection that begins with this byte may be HTTP/1.1 without TLS: methods are uppercase
/// letters, and a handshake begins with 0x16.
pub(super) fn is_http(first: u8) -> bool {
    first.is_ascii_uppercase()
}

/// Answers the first request of a connection, and closes it. The caller limits the time.
pub(super) async fn refuse(stream: TcpStream) -> hyper::Result<()> {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(refusal(request).await) });
    let mut builder = http1::Builder::new();
    // A client may close its side once it has sent a request.
    builder.keep_alive(false).half_close(true);
    builder.serve_connection(TokioIo::new(stream), service).await
}

async fn refusal(request: Request<Incoming>) -> Response {
    let (parts, body) = request.map(Body::new).into_parts();
    body::discard(&parts.headers, &mut body.into_data_stream()).await;
    let detail =
        "This address speaks TLS, and the request came without it: use https:// in place of http://.";
    Problem::new(ProblemCode::PlainHttp, detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_not_taken_for_a_handshake() {
        for (first, expected) in [(b'G', true), (b'P', true), (0x16, false), (0x80, false), (b'g', false)] {
            assert_eq!(is_http(first), expected, "{first}");
        }
    }
}
