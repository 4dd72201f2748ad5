//! The headers of requests, read into the types of the model. Each problem names its header. Messages have
//! the same headers as HTTP requests, except the one with the idempotency key.

use std::str::FromStr;
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::contract::Problem;
use crate::model::{CommandId, CorrelationId, Position, Version};
use crate::query::Revision;

/// The position in the log: a query waits for it, a reply returns it.
pub(super) const POSITION: HeaderName = HeaderName::from_static("kontor-position");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The name of the operator, which stays in the log.
pub(super) const ACTOR: &str = "kontor-actor";
/// The proof that a page of this host sends a request with the cookie of a session.
pub(super) const CSRF: &str = "kontor-csrf";
pub(super) const SIGNATURE: &str = "kontor-signature";
/// The header of HTTP with the idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// The header of NATS with the idempotency key.
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
const PREFER: &str = "prefer";

/// Maximum length of an idempotency key, in characters: that of the common implementations.
const MAX_KEY_LENGTH: usize = 255;
/// The longest request id of a request that a caller may set, in characters. It is stored with every event.
const MAX_REQUEST_ID_LENGTH: usize = 128;
/// The longest name of an operator, in characters.
const MAX_ACTOR_LENGTH: usize = 64;

/// The condition of `If-Match` on the stream.
#[derive(Debug, PartialEq)]
pub(super) enum IfMatch {
    /// `*`: the stream has events.
    Exists,
    /// `"7"` or `"7-…"`: the stream is at this version, whichever component made the tag.
    Version(Version),
}

/// Returns the caller's key in the header `name`; none without a key.
pub(super) fn idempotency_key<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let key = visible(value).filter(|key| (1..=MAX_KEY_LENGTH).contains(&key.len()));
    match key {
        Some(key) => Ok(Some(key)),
        None => Err(Problem::invalid_header(format!(
            "{name} must have 1 to {MAX_KEY_LENGTH} visible ASCII characters."
        ))),
    }
}

/// Reads `If-Match`. A repeated header, a list of tags and a weak tag are refused: an aggregate has one exact
/// version.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let condition = match (value.to_str().map(str::trim), values.next()) {
        (Ok("*"), None) => Some(IfMatch::Exists),
        (Ok(text), None) => version_of_tag(text).map(IfMatch::Version),
        _ => None,
    };
    let refused = || Problem::invalid_header("If-Match must be one strong ETag, such as \"7\", or *.");
    condition.ok_or_else(refused).map(Some)
}

/// Returns whether `If-None-Match` excludes an existing answer with this ETag.
pub(super) fn none_match(headers: &HeaderMap, etag: Option<&HeaderValue>) -> bool {
    unwanted_tags(headers).any(|tag| tag == "*") || etag.is_some_and(|etag| has_kept(headers, etag))
}

/// Returns whether the caller has stored the answer with this ETag. Weak and strong tags match each other
/// (RFC 9110, 13.1.2).
pub(super) fn has_kept(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    etag.to_str().is_ok_and(|etag| unwanted_tags(headers).any(|tag| opaque(tag) == opaque(etag)))
}

fn unwanted_tags(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Returns the ETag of an aggregate at a version, for the reply to a command.
pub(super) fn etag(version: Version) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{version}\"")).ok()
}

/// Returns the ETag of an answer. That of an aggregate's view is strong, because commands send it in
/// `If-Match`, which compares only its version; the digest is in it because another component may have
/// another view of the same version. That of a read model is weak: the answer is equal, but not necessarily
/// byte for byte.
pub(super) fn revision_etag(revision: &Revision) -> Option<HeaderValue> {
    match revision {
        Revision::View { component, version } => {
            HeaderValue::try_from(format!("\"{version}-{}\"", component.short())).ok()
        }
        Revision::ReadModel { component, opening, changes } => {
            let (component, opening) = (component.short(), opening.simple());
            HeaderValue::try_from(format!("W/\"{component}-{opening}-{changes}\"")).ok()
        }
    }
}

fn version_of_tag(tag: &str) -> Option<Version> {
    let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
    decimal(tag.split_once('-').map_or(tag, |(version, _)| version))
}

/// Reads `Kontor-Position`: the position that the answer must reflect at least.
pub(super) fn at_least(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(value) = headers.get(POSITION) else {
        return Ok(None);
    };
    let position = value.to_str().ok().and_then(decimal);
    let refused = || Problem::invalid_header("Kontor-Position must be the number from an earlier reply.");
    position.ok_or_else(refused).map(Some)
}

/// Reads `Prefer: wait=N`: the time that the caller prefers to wait, at most `limit`. A malformed preference
/// is ignored (RFC 7240).
pub(super) fn prefer_wait(headers: &HeaderMap, limit: Duration) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';']));
    let seconds = preferences.find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let seconds = decimal(value.trim().trim_matches('"'))?;
        name.trim().eq_ignore_ascii_case("wait").then_some(seconds)
    })?;
    Some(Duration::from_secs(seconds).min(limit))
}

/// Returns `Preference-Applied` for a wait.
pub(super) fn wait_applied(wait: Duration) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()
}

/// Returns the id of a request, which is the correlation id of everything that follows from it: that of the
/// caller; else the id of the key in the header `name`, so that a repeated request has the same; else a new
/// one.
pub(super) fn correlation_id(headers: &HeaderMap, name: &str) -> CorrelationId {
    let key = || idempotency_key(headers, name).ok().flatten();
    let of_key = || key().map(|key| CommandId::from_key(key).shared().into());
    request_id(headers).or_else(of_key).unwrap_or_else(|| Uuid::now_v7().to_string().into())
}

/// Returns `X-Request-Id`, if it is safe in logs and events.
fn request_id(headers: &HeaderMap) -> Option<CorrelationId> {
    let id = visible(headers.get(REQUEST_ID)?)?;
    (1..=MAX_REQUEST_ID_LENGTH).contains(&id.len()).then(|| id.into())
}

/// Reads `Authorization`. Two of them are refused: nobody could tell which one is meant.
pub(super) fn authorization(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let refused = || Problem::invalid_header("Authorization must be one header of visible ASCII characters.");
    text.ok_or_else(refused).map(Some)
}

/// Reads `Kontor-Actor`: the user for whom the caller says it acts. Names are not only English, so UTF-8 is
/// accepted.
pub(super) fn actor(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(ACTOR) else {
        return Ok(None);
    };
    let name = std::str::from_utf8(value.as_bytes()).ok().map(str::trim);
    let printable = |name: &&str| {
        (1..=MAX_ACTOR_LENGTH).contains(&name.chars().count()) && !name.chars().any(char::is_control)
    };
    name.filter(printable).map(Some).ok_or_else(|| {
        Problem::invalid_header(format!(
            "Kontor-Actor must have 1 to {MAX_ACTOR_LENGTH} printable characters."
        ))
    })
}

/// Returns whether the body may be JSON: `Content-Type` is absent, `application/json` or ends in `+json`.
pub(super) fn content_is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let Ok(value) = value.to_str() else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
        || media_type.len() > 5
            && media_type.as_bytes()[media_type.len() - 5..].eq_ignore_ascii_case(b"+json")
}

/// Returns whether the caller accepts JSON and no stream of server-sent events.
pub(super) fn accepts_json_only(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

/// Parses a number of digits only: no sign, no blanks.
pub(super) fn decimal<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn visible(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let value = |value: &&str| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        values.iter().map(value).collect()
    }

    #[test]
    fn if_match_is_one_strong_tag_or_a_star() {
        let accepted = [
            (vec![], None),
            (vec!["*"], Some(IfMatch::Exists)),
            (vec!["\"7\""], Some(IfMatch::Version(Version::new(7)))),
            (vec![" \"0\" "], Some(IfMatch::Version(Version::START))),
            (vec!["\"7-0123456789ab\""], Some(IfMatch::Version(Version::new(7)))),
        ];
        for (values, expected) in accepted {
            assert_eq!(if_match(&headers("if-match", &values)).unwrap(), expected, "{values:?}");
        }
        for refused in
            [vec!["W/\"7\""], vec!["7"], vec!["\"7\", \"8\""], vec!["\"7\"", "\"8\""], vec!["\"+7\""]]
        {
            let problem = if_match(&headers("if-match", &refused)).unwrap_err();
            assert_eq!(problem.code(), "invalid-header", "{refused:?}");
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
        for key in ["cart-7", "\"quoted\"", &longest] {
            let headers = headers("nats-msg-id", &[key]);
            assert_eq!(idempotency_key(&headers, MESSAGE_ID).unwrap(), Some(key));
        }
        for key in ["", "two words", &"k".repeat(256)] {
            let refused = idempotency_key(&headers("idempotency-key", &[key]), IDEMPOTENCY_KEY).unwrap_err();
            assert!(refused.log_text().starts_with("Idempotency-Key"), "{key:?}");
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
    fn the_name_of_an_operator_is_printable() {
        let longest = "ä".repeat(64);
        for name in ["ada", "Ada Lovelace", "Jürgen", &longest] {
            assert_eq!(actor(&headers(ACTOR, &[name])).unwrap(), Some(name));
        }
        assert_eq!(actor(&HeaderMap::new()).unwrap(), None);
        for refused in ["", " ", "a\tb", &"x".repeat(65)] {
            assert_eq!(
                actor(&headers(ACTOR, &[refused])).unwrap_err().code(),
                "invalid-header",
                "{refused:?}"
            );
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
        assert_eq!(at_least(&headers("kontor-position", &["42"])).unwrap(), Some(Position::new(42)));
        assert_eq!(at_least(&HeaderMap::new()).unwrap(), None);
        for bad in ["", "-1", "4 2", "99999999999999999999999"] {
            assert!(at_least(&headers("kontor-position", &[bad])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_an_explicit_wish_for_json_gets_a_page_of_events() {
        for (accept, json) in [
            ("application/json", true),
            ("text/event-stream", false),
            ("*/*", false),
            ("text/event-stream, application/json", false),
        ] {
            assert_eq!(accepts_json_only(&headers("accept", &[accept])), json, "{accept}");
        }
    }
}
