//! Tests of the headers, in the same order.

use mediatype::{Name, names};

use super::*;

const EVENT_STREAM: Name<'_> = Name::new_unchecked("event-stream");

fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
    let value = |value: &&str| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    values.iter().map(value).collect()
}

#[test]
fn preconditions_are_lists_of_tags_or_a_star() {
    let of = |versions: &[u64]| Some(Versions::Of(versions.iter().map(|v| Version::new(*v)).collect()));
    for (values, one_of, none_of) in [
        (vec![], None, None),
        (vec!["*"], Some(Versions::Any), Some(Versions::Any)),
        (vec!["\"7\""], of(&[7]), of(&[7])),
        (vec![" \"0\" "], of(&[0]), of(&[0])),
        (vec!["\"7-0123456789ab\""], of(&[7]), of(&[7])),
        (vec!["\"7\",\t\"8\",,"], of(&[7, 8]), of(&[7, 8])),
        (vec!["\"7\"", "W/\"8\""], of(&[7]), of(&[7, 8])),
        (vec!["\"+7\", \"a, b\", \"\""], of(&[]), of(&[])),
    ] {
        let read = |name| precondition(&headers(name, &values)).unwrap();
        assert_eq!(read("if-match"), Precondition { one_of, none_of: None }, "{values:?}");
        assert_eq!(read("if-none-match"), Precondition { one_of: None, none_of }, "{values:?}");
    }
    for refused in
        [vec!["7"], vec![""], vec!["\"7"], vec!["\"7\" \"8\""], vec!["*", "\"8\""], vec!["w/\"7\""]]
    {
        for name in ["if-match", "if-none-match"] {
            let problem = precondition(&headers(name, &refused)).unwrap_err();
            assert_eq!(problem.code(), "invalid-header", "{refused:?}");
        }
    }
}

#[test]
fn none_match_compares_weakly() {
    let etag = etag(Version::new(7)).unwrap();
    for (values, matches) in [
        (vec!["\"7\""], true),
        (vec!["W/\"7\""], true),
        (vec!["\"6\", \"7\""], true),
        (vec!["*"], true),
        (vec!["\"6\""], false),
        (vec![], false),
    ] {
        assert_eq!(none_match(&headers("if-none-match", &values), Some(&etag)), matches, "{values:?}");
    }
}

#[test]
fn a_star_is_no_stored_answer() {
    let weak = HeaderValue::from_static("W/\"a-1\"");
    for (value, kept, matches) in [
        ("*", false, true),
        ("W/\"a-1\"", true, true),
        ("\"a-1\"", true, true),
        ("W/\"a-2\", W/\"a-1\"", true, true),
        ("W/\"a-2\"", false, false),
    ] {
        let headers = headers("if-none-match", &[value]);
        assert_eq!(
            (has_kept(&headers, &weak), none_match(&headers, Some(&weak))),
            (kept, matches),
            "{value}"
        );
    }
}

#[test]
fn the_etag_of_a_view_is_strong_and_that_of_a_read_model_weak() {
    let component = crate::model::Digest::of(b"component");
    let tag = |revision| revision_etag(&revision).unwrap().to_str().unwrap().to_owned();
    let view = tag(Revision::View { component, version: Version::new(7) });
    assert_eq!(version_of_tag(&view), Some(Version::new(7)));
    let other = crate::model::Digest::of(b"other");
    assert_ne!(view, tag(Revision::View { component: other, version: Version::new(7) }));
    let reading = tag(Revision::ReadModel { component, opening: uuid::Uuid::nil(), changes: 3 });
    assert!(reading.starts_with("W/\"") && reading.ends_with("-3\""), "{reading}");
}

#[test]
fn a_preference_to_wait_is_found_and_capped() {
    let limit = Duration::from_secs(60);
    for (values, seconds) in [
        (vec!["wait=5"], Some(5)),
        (vec!["respond-async, wait=10"], Some(10)),
        (vec!["respond-async", "Wait = 7"], Some(7)),
        (vec!["wait=\"3\""], Some(3)),
        (vec!["wait=9999"], Some(60)),
        (vec!["wait=0"], Some(0)),
        (vec!["wait=-1"], None),
        (vec!["wait"], None),
        (vec!["return=minimal"], None),
        (vec![], None),
    ] {
        let expected = seconds.map(Duration::from_secs);
        assert_eq!(prefer_wait(&headers("prefer", &values), limit), expected, "{values:?}");
    }
}

#[test]
fn idempotency_keys_are_visible_ascii() {
    let longest = "k".repeat(255);
    for (value, key) in [
        ("cart-7", "cart-7"),
        ("\"cart-7\"", "cart-7"),
        ("\"two \\\"words\\\"\"", "two \"words\""),
        (&longest, &longest),
    ] {
        let headers = headers("nats-msg-id", &[value]);
        assert_eq!(idempotency_key(&headers, MESSAGE_ID).unwrap().as_deref(), Some(key));
    }
    for keys in [&[""][..], &["two words"], &["\"open"], &["\"\""], &["a", "b"], &[&"k".repeat(256)]] {
        let refused = idempotency_key(&headers("idempotency-key", keys), IDEMPOTENCY_KEY).unwrap_err();
        assert!(refused.log_text().starts_with("Idempotency-Key"), "{keys:?}");
    }
    assert_eq!(idempotency_key(&HeaderMap::new(), MESSAGE_ID).unwrap(), None);
}

#[test]
fn there_is_one_authorization_or_none() {
    assert_eq!(authorization(&HeaderMap::new()).unwrap(), None);
    let one = headers("authorization", &["Bearer abc"]);
    assert_eq!(authorization(&one).unwrap(), Some("Bearer abc"));
    let two = headers("authorization", &["Bearer abc", "Bearer abd"]);
    assert_eq!(authorization(&two).unwrap_err().code(), "invalid-header");
    let mut binary = HeaderMap::new();
    binary.insert("authorization", HeaderValue::from_bytes(b"Bearer \xff").unwrap());
    assert_eq!(authorization(&binary).unwrap_err().code(), "invalid-header");
}

#[test]
fn request_ids_that_are_unsafe_in_a_log_are_replaced() {
    assert_eq!(request_id(&headers("x-request-id", &["a-1"])).unwrap(), "a-1");
    for bad in ["", "a b", &"x".repeat(129)] {
        assert_eq!(request_id(&headers("x-request-id", &[bad])), None, "{bad:?}");
    }
}

#[test]
fn the_name_in_kontor_actor_is_printable() {
    let longest = "ä".repeat(64);
    for name in ["ada", "Ada Lovelace", "Jürgen", &longest] {
        assert_eq!(actor(&headers(ACTOR, &[name])).unwrap(), Some(name));
    }
    assert_eq!(actor(&HeaderMap::new()).unwrap(), None);
    for refused in ["", " ", "a\tb", &"x".repeat(65)] {
        assert_eq!(actor(&headers(ACTOR, &[refused])).unwrap_err().code(), "invalid-header", "{refused:?}");
    }
}

#[test]
fn bodies_are_json() {
    for (value, json) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/merge-patch+json", true),
        ("text/plain", false),
        ("application/x-www-form-urlencoded", false),
        ("+json", false),
        ("", false),
    ] {
        assert_eq!(content_is_json(&headers("content-type", &[value])), json, "{value}");
    }
    assert!(content_is_json(&HeaderMap::new()));
}

#[test]
fn positions_are_plain_numbers() {
    let (_stop, stopping) = watch::channel(false);
    let position = |headers: &HeaderMap| {
        let at_least = at_least(headers, Duration::from_secs(60), &stopping);
        at_least.map(|at_least| at_least.position.map(Position::get))
    };
    assert_eq!(position(&headers("kontor-position", &["42"])).unwrap(), Some(42));
    assert_eq!(position(&HeaderMap::new()).unwrap(), None);
    for bad in ["", "-1", "4 2", "9223372036854775808", "99999999999999999999999"] {
        assert!(position(&headers("kontor-position", &[bad])).is_err(), "{bad:?}");
    }
}

#[test]
fn the_media_type_is_negotiated() {
    const AVAILABLE: &[MediaType<'_>] =
        &[MediaType::new(names::TEXT, EVENT_STREAM), MediaType::new(names::APPLICATION, names::JSON)];
    for (accept, expected) in [
        (&[][..], Some("text/event-stream")),
        (&["*/*"], Some("text/event-stream")),
        (&["text/event-stream"], Some("text/event-stream")),
        (&["APPLICATION/JSON"], Some("application/json")),
        (&["application/*"], Some("application/json")),
        (&["text/event-stream;q=0", "application/json"], Some("application/json")),
        (&["text/html, application/json;q=0.5, text/event-stream;q=0.4"], Some("application/json")),
        (&["text/html"], None),
        (&["no media type"], Some("text/event-stream")),
    ] {
        let found = preferred(&headers("accept", accept), AVAILABLE).map(ToString::to_string);
        assert_eq!(found.as_deref(), expected, "{accept:?}");
    }
}
