use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::near::{near, near_text};
use super::{Outcomes, run};
use crate::common::Site;
use crate::common::shop::configuration;

/// Longer than any answer takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

const LINES: &[&str] = &[
    "GET /",
    "PUT /products/tea",
    "GET /products/tea",
    "HEAD /products/tea",
    "POST /products/tea/add-stock",
    "GET /products?limit=5&after=tea",
    "POST /orders",
    "GET /orders/o-1",
    "DELETE /orders/o-1",
    "GET /orders/o-1/details",
    "GET /reports/sales?by=day&from=2026-01-01",
    "GET /events?after=0&limit=5",
    "GET /streams/product/tea?at=2026-01-01T00:00:00Z",
    "GET /sagas/x",
    "GET /admin/sagas?state=parked&limit=2",
    "GET /admin/audit?since=2026-01-01T00:00:00Z&limit=3",
    "PUT /admin/plugins?dry-run=true&sample=3&grant=service:x",
    "GET /admin/plugins/history?limit=1",
    "POST /admin/dead-letters/redrive",
    "POST /admin/projections/report/redrive",
    "POST /admin/sagas/x/resolve",
    "POST /admin/tokens",
    "DELETE /admin/tokens/x?reason=lost",
    "GET /auth/me",
    "POST /auth/sign-out",
    "GET /auth/callback?code=a&state=b",
    "GET /auth/sign-in?back=/x",
    "GET /problems/busy",
    "GET /healthz",
    "OPTIONS /metrics",
    "GET /openapi.json",
];
const HEADERS: &[&str] = &[
    "host",
    "origin",
    "cookie",
    "accept",
    "content-type",
    "expect",
    "if-match",
    "if-none-match",
    "idempotency-key",
    "prefer",
    "kontor-position",
    "kontor-actor",
    "kontor-csrf",
    "kontor-signature",
    "last-event-id",
    "sec-fetch-site",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "te",
    "upgrade",
];
const VALUES: &[&str] = &[
    "localhost",
    "http://localhost",
    "kontor=abc; kontor-sign-in=def",
    "application/json",
    "text/event-stream",
    "multipart/form-data; boundary=x",
    "application/wasm",
    "\"7\"",
    "cart-7",
    "wait=5",
    "42",
    "Ada",
    "cross-site",
    "eyJwYXlsb2FkVHlwZSI6IiJ9",
    "100-continue",
    "h2c",
];
const BODIES: &[&str] = &[
    "",
    "{}",
    r#"{"quantity":1}"#,
    r#"{"name":"Tea","unit_price":450,"quantity":10}"#,
    r#"{"user_id":"ann","lines":[{"product_id":"tea","quantity":2}],"payment":[{"method":"card","share":"1"}],
        "address":{"line":"1 Quay","region":"north"}}"#,
    r#"{"subject":"ben","roles":["clerk"],"expires":"2027-01-01T00:00:00Z"}"#,
    r#"{"id":7,"reason":"because"}"#,
    "--x\r\ncontent-disposition: form-data; name=\"component\"\r\n\r\n\u{0}asm\r\n--x--\r\n",
];
/// Parts of requests that could be misread.
const WORDS: &[&str] = &[
    "%00",
    "%FF",
    "%2F",
    "%",
    "..",
    "//",
    "?",
    "&",
    "=",
    "#",
    ":",
    ";",
    ",",
    "\"",
    "*",
    " ",
    "\t",
    "\r",
    "\n",
    "\r\n\r\n",
    "\u{0}",
    "\u{7f}",
    "\u{e9}",
    "limit=",
    "after=-1",
    "18446744073709551616",
    "1e999",
    "[[[[[[[[",
    "\\ud800",
    "{\"a\":{\"a\":",
    "null",
    "true",
    "-0",
    "HTTP/1.1",
    "boundary=",
    "--x",
    "W/",
    "wait=",
];

#[derive(Clone, Debug)]
struct Request {
    /// The method and the path.
    line: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    /// True if an operator sends it.
    signed_in: bool,
}

fn request() -> impl Strategy<Value = Request> {
    // Half of the parts are good, or hardly a request would get beyond the first one that is not.
    let bytes = |seeds: &'static [&'static str]| {
        let good = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect::<Vec<_>>();
        prop_oneof![select(good.clone()), near(good, WORDS)]
    };
    let name = prop_oneof![9 => select(HEADERS).prop_map(str::to_owned), 1 => near_text(HEADERS, WORDS)];
    let headers = vec((name, bytes(VALUES)), 0..4);
    let parts = (bytes(LINES), headers, bytes(BODIES), any::<bool>());
    parts.prop_map(|(line, headers, body, signed_in)| Request { line, headers, body, signed_in })
}

impl Request {
    /// Returns the bytes to send. The length of the body is right, so that the host need not wait for more.
    fn bytes(&self, token: &str) -> Vec<u8> {
        let mut bytes = [&self.line, &b" HTTP/1.1\r\n"[..]].concat();
        for (name, value) in &self.headers {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        if !self.headers.iter().any(|(name, _)| name == "host") {
            bytes.extend(b"host: localhost\r\n");
        }
        if self.signed_in {
            bytes.extend(format!("authorization: Bearer {token}\r\n").bytes());
        }
        bytes.extend(format!("content-length: {}\r\n\r\n", self.body.len()).bytes());
        [bytes, self.body.clone()].concat()
    }

    /// Returns true if the host may read one request out of it, and nothing is left.
    fn is_one(&self) -> bool {
        let head =
            self.headers.iter().map(|(name, value)| [name.as_bytes(), value].concat()).collect::<Vec<_>>();
        let head = [self.line.clone(), head.concat()].concat();
        !head.iter().any(|byte| b"\r\n".contains(byte))
    }
}

struct Answer {
    status: u16,
    /// `None`: the length is not known.
    body: Option<Vec<u8>>,
}

/// Reads an answer. `None`: the host has closed the connection without one.
fn answer(stream: &mut BufReader<TcpStream>, request: &Request) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).expect("an answer in time") == 0 {
            assert!(head.is_empty(), "half an answer: {}", String::from_utf8_lossy(&head));
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(&head);
    if status == 100 {
        return answer(stream, request);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    // A server ignores empty lines before a request (RFC 9112, 2.2).
    let has_no_body = request.line.trim_ascii_start().starts_with(b"HEAD ") || matches!(status, 204 | 304);
    let length = if has_no_body { Some(0) } else { length };
    let body = length.map(|length: usize| {
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        body
    });
    Some(Answer { status, body })
}

/// A connection that is used as long as the host keeps it open.
#[derive(Default)]
struct Wire(Mutex<Option<BufReader<TcpStream>>>);

impl Wire {
    fn send(&self, address: &str, request: &Request, token: &str) -> Option<Answer> {
        let mut kept = self.0.lock().unwrap();
        let bytes = request.bytes(token);
        for mut stream in kept.take().into_iter().chain([()].map(|()| connect(address))) {
            // Err: the host has closed the connection before it was used again, or amidst the garbage.
            let _ = stream.get_mut().write_all(&bytes);
            let Ok(peeked) = stream.fill_buf() else { continue };
            if peeked.is_empty() {
                continue;
            }
            let answer = answer(&mut stream, request);
            let whole = answer.as_ref().is_some_and(|answer| answer.body.is_some());
            *kept = (whole && request.is_one()).then_some(stream);
            return answer;
        }
        None
    }
}

fn connect(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("the host listens");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    BufReader::new(stream)
}

#[test]
fn a_request_of_any_bytes_is_answered_with_a_problem_that_names_what_is_wrong() {
    // Nothing is waited for, and nobody is sent away for sending much.
    let limits = "[limits]\nwait_ms = 1\ncaller_commands_per_second = 1_000_000\ncaller_burst = 1_000_000\n";
    let site = Site::new(&format!("{}{limits}[auth]\n", configuration()));
    let host = site.start();
    let token = std::fs::read_to_string(site.data().join("operator.token")).unwrap();
    let (token, address) = (token.trim(), host.url().strip_prefix("http://").unwrap());
    let (wire, outcomes) = (Wire::default(), Outcomes::default());
    run(1, &request(), |request| {
        let Some(answer) = wire.send(address, &request, token) else {
            outcomes.count("closed without an answer");
            return Ok(());
        };
        let body = answer.body.unwrap_or_default();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or_default();
        outcomes.count(&format!("{} {code}", answer.status));
        // A position that the log does not reach in time is a limit, and says so, except to HEAD.
        let says_limit = code == "position-ahead" || (answer.status == 504 && body.is_empty());
        prop_assert!(answer.status < 500 || says_limit, "{} {problem}", answer.status);
        // The protocol itself refuses with a status alone.
        let routed = answer.status >= 400 && !body.is_empty();
        let detail = problem["detail"].as_str().unwrap_or_default();
        prop_assert!(!routed || (code.len() > 3 && detail.ends_with('.')), "{}: {problem}", answer.status);
        Ok(())
    });
    let (all, understood) = outcomes.print("2");
    assert!(understood * 20 > all, "only {understood} of {all} requests did something");
    assert_eq!(host.get("/healthz").status, 200);
    assert!(!host.log().contains("panicked"), "{}", host.log());
}
