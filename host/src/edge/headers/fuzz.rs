use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::contract::fuzz::{is_clear, near};

const NAMES: &[&str] = &[
    "idempotency-key",
    "nats-msg-id",
    "if-match",
    "if-none-match",
    "kontor-position",
    "prefer",
    "x-request-id",
    "authorization",
    "kontor-actor",
    "content-type",
    "accept",
];
const VALUES: &[&str] = &[
    "cart-7",
    "\"7\"",
    "W/\"7-0123456789ab\"",
    "*",
    "42",
    "respond-async, wait=5",
    "Bearer abc",
    "Ada",
    "application/problem+json; charset=utf-8",
    "text/event-stream",
];
const WORDS: &[&str] =
    &["\"", "W/", ",", ";", "=", "wait=", "-", "+", "18446744073709551616", "\u{e9}", " ", "\t", "\u{200b}"];

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let values = VALUES.iter().map(|value| value.as_bytes().to_vec()).collect();
    vec((select(NAMES), near(values, WORDS)), 0..4)
}

proptest! {
    #[test]
    fn each_header_is_read_or_refused_with_a_sentence(found in headers()) {
        let valid = |(name, value): (&'static str, Vec<u8>)| {
            Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
        };
        let headers: HeaderMap = found.into_iter().filter_map(valid).collect();
        let limit = Duration::from_secs(60);
        let refused = [
            idempotency_key(&headers, IDEMPOTENCY_KEY).err(),
            idempotency_key(&headers, MESSAGE_ID).err(),
            precondition(&headers).err(),
            at_least(&headers, limit, &watch::channel(false).1).err(),
            authorization(&headers).err(),
            actor(&headers).err(),
        ];
        refused.iter().flatten().try_for_each(is_clear)?;
        prop_assert!(prefer_wait(&headers, limit).is_none_or(|wait| wait <= limit));
        let id = correlation_id(&headers, MESSAGE_ID);
        prop_assert!(id.as_str().len() <= MAX_REQUEST_ID_LENGTH);
        prop_assert!(HeaderValue::try_from(id.as_str()).is_ok());
        none_match(&headers, etag(Version::new(7)).as_ref());
        let _ = (content_is_json(&headers), content_is_encoded(&headers));
    }
}
