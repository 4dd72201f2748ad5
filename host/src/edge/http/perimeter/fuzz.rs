use std::sync::LazyLock;

use axum::http::{HeaderName, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::contract::fuzz::{is_clear, near};
use crate::edge::http::peer::subject_of;

/// Parts of the headers that are checked.
const WORDS: &[&str] = &[
    "evil.example",
    "localhost",
    "127.0.0.1",
    "[::1]",
    "[",
    "]",
    ":",
    ":80",
    "@",
    ".",
    ",",
    " ",
    "http://",
    "https://",
    "null",
    "/",
    "%",
    "\u{e9}",
    "cross-site",
    "same-site",
    "navigate",
    "document",
    "iframe",
];

static OPTIONS: LazyLock<HttpOptions> =
    LazyLock::new(|| toml::from_str("hosts = ['shop.example']\ntrusted_proxies = ['10.0.0.0/8']").unwrap());

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let names = select(vec![
        "host",
        "origin",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "sec-fetch-site",
        "sec-fetch-mode",
        "sec-fetch-dest",
    ]);
    let seeds = ["localhost:7070", "shop.example", "http://localhost:7070", "10.0.0.9, 192.0.2.1", "https"];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
    vec((names, near(seeds, WORDS)), 0..5)
}

proptest! {
    #[test]
    fn headers_are_admitted_or_refused_with_a_sentence(
        headers in headers(),
        uri in select(vec!["/", "http://localhost:7070/", "http://evil.example/", "*"]),
        peer in select(vec!["127.0.0.1", "10.0.0.9", "192.0.2.7"]),
        certificate in vec(any::<u8>(), 0..60),
    ) {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request = request.header(HeaderName::from_static(name), value);
            }
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let peer = Peer::of_tcp(peer.parse().unwrap(), "127.0.0.1".parse().unwrap());
        match OPTIONS.admit(&parts, peer) {
            Err(problem) => is_clear(&problem)?,
            Ok(_) => {
                let named = parts.headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
                let named = [String::from_utf8_lossy(named).into_owned(), uri.to_owned()].concat();
                prop_assert!(!named.contains("evil"), "{parts:?}");
            }
        }
        subject_of(&certificate);
    }
}
