//! The headers that connect the records of another system with those of the host (W3C Trace Context).

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sets the headers of a command's `nth` request. All that follows from one request to this host is one
/// trace. This request is a span, the same whenever the command is retried.
pub(super) fn set(headers: &mut HeaderMap, correlation_id: &str, command_id: &str, nth: u64) {
    let trace = hashed::<16>(correlation_id);
    let span = hashed::<8>(&format!("{command_id} {nth}"));
    set_header(headers, TRACEPARENT, &format!("00-{trace}-{span}-01"));
    set_header(headers, REQUEST_ID, correlation_id);
}

/// Returns bytes derived from a text, in hexadecimal.
fn hashed<const BYTES: usize>(text: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(text).into();
    hex::encode(&hash[..BYTES])
}

/// Sets a header. Removes it, with the component's own value, if a header cannot carry `value`.
fn set_header(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => _ = headers.insert(name, value),
        Err(_) => _ = headers.remove(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(correlation_id: &str, command_id: &str, nth: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("what the component says"));
        set(&mut headers, correlation_id, command_id, nth);
        headers
    }

    fn parts(headers: &HeaderMap) -> Vec<String> {
        headers[TRACEPARENT].to_str().unwrap().split('-').map(str::to_owned).collect()
    }

    #[test]
    fn a_trace_is_one_request_to_the_host_and_a_span_one_request_of_a_command() {
        let [first, second, other, again] =
            [("r1", "c1", 1), ("r1", "c1", 2), ("r2", "c2", 1), ("r1", "c1", 1)]
                .map(|(correlation, command, nth)| parts(&headers(correlation, command, nth)));
        assert_eq!(first.iter().map(String::len).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!(first[1], second[1]);
        assert_ne!(first[2], second[2]);
        assert_ne!(first[1], other[1]);
        assert_eq!(first, again);
    }

    #[test]
    fn the_request_id_is_the_correlation_id() {
        assert_eq!(headers("r1", "c1", 1)[REQUEST_ID], "r1");
        assert!(headers("no\nheader", "c1", 1).get(REQUEST_ID).is_none());
    }
}
