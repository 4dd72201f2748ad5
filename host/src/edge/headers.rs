//! The headers of requests, read into the types of the model. Each problem names its header. Messages have
//! the same headers as HTTP requests, except the one with the idempotency key.

use std::str::FromStr;
use std::time::Duration;

use headers_accept::Accept;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use mediatype::MediaType;
use tokio::sync::watch;
use uuid::Uuid;

use crate::contract::Problem;
use crate::model::{CommandId, CorrelationId, Position, Precondition, Version, Versions};
use crate::query::{AtLeast, Revision};

/// The position in the log: a query waits for it, a reply returns it.
pub(super) const POSITION: HeaderName = HeaderName::from_static("kontor-position");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The user on whose behalf a request is sent. It stays in the log and gives no rights.
pub(super) const ACTOR: &str = "kontor-actor";
/// The proof that a page of this host sends a request with the cookie of a session.
pub(super) const CSRF: &str = "kontor-csrf";
pub(super) const SIGNATURE: &str = "kontor-signature";
/// The header of HTTP with the idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// The header of NATS with the idempotency key.
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
const PREFER: &str = "prefer";
/// Optional white space in headers.
const BLANKS: [char; 2] = [' ', '\t'];
/// The value of `Cache-Control` of a reply that nobody may store.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Maximum length of an idempotency key, in characters: that of the common implementations.
const MAX_KEY_LENGTH: usize = 255;
/// The longest request id of a request that a caller may set, in characters. It is stored with every event.
const MAX_REQUEST_ID_LENGTH: usize = 128;
/// The longest name in `Kontor-Actor`, in characters.
const MAX_ACTOR_LENGTH: usize = 64;

/// Returns the caller's key in the header `name`; none without a key. It is written as it is, or as a string
/// of structured fields (RFC 9651), which is the same key: `cart-7` or `"cart-7"`. Two keys are refused:
/// nobody could tell which one is meant.
pub(super) fn idempotency_key(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key =
        if value.as_bytes().starts_with(b"\"") { quoted(value) } else { visible(value).map(str::to_owned) };
    let key = key.filter(|key| (1..=MAX_KEY_LENGTH).contains(&key.len()) && values.next().is_none());
    let refused = || {
        Problem::invalid_header(format!(
            "{name} must be one key of 1 to {MAX_KEY_LENGTH} visible ASCII characters, or a string in quotes."
        ))
    };
    key.ok_or_else(refused).map(Some)
}

/// Returns the content of a string of structured fields.
fn quoted(value: &HeaderValue) -> Option<String> {
    match sfv::Parser::new(value.as_bytes()).parse::<sfv::Item>().ok()?.bare_item {
        sfv::BareItem::String(text) => Some(text.into()),
        _ => None,
    }
}

/// Reads the conditions of `If-Match` and `If-None-Match` on the version of an aggregate. A version has two
/// tags, `"7"` and `"7-…"` with the component that showed it. Others are tags of no version.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    // A weak tag never matches strongly (RFC 9110, 8.8.3.2).
    let one_of = versions(headers, header::IF_MATCH, version_of_tag)?;
    let none_of = versions(headers, header::IF_NONE_MATCH, |tag| version_of_tag(opaque(tag)))?;
    Ok(Precondition { one_of, none_of })
}

/// Reads the versions of a list of entity tags. `None`: the header is absent.
fn versions(
    headers: &HeaderMap,
    name: HeaderName,
    version: impl Fn(&str) -> Option<Version>,
) -> Result<Option<Versions>, Problem> {
    if !headers.contains_key(&name) {
        return Ok(None);
    }
    let refused = || Problem::invalid_header(format!("{name} must be entity tags, such as \"7\", or *."));
    let tags = tags(headers, &name).ok_or_else(refused)?;
    Ok(Some(match tags[..] {
        ["*"] => Versions::Any,
        _ => Versions::Of(tags.iter().filter_map(|tag| version(tag)).collect()),
    }))
}

/// Returns the entity tags of a header, or `["*"]`. `None`: it is malformed. A tag may contain commas.
fn tags<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Vec<&'h str>> {
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let mut rest = value.to_str().ok()?.trim_matches(BLANKS);
        while !rest.is_empty() {
            let opening = if rest.starts_with("W/") { 2 } else { 0 };
            let end = match rest[opening..].strip_prefix('"') {
                Some(quoted) => opening + quoted.find('"')? + 2,
                None if rest.starts_with('*') => 1,
                None => return None,
            };
            tags.push(&rest[..end]);
            rest = rest[end..].trim_start_matches(BLANKS);
            rest = match rest.strip_prefix(',') {
                Some(next) => next.trim_start_matches([' ', '\t', ',']),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
    }
    (!tags.is_empty() && (tags == ["*"] || !tags.contains(&"*"))).then_some(tags)
}

/// Returns a tag without its weakness.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Returns whether `If-None-Match` excludes an existing answer with this ETag.
pub(super) fn none_match(headers: &HeaderMap, etag: Option<&HeaderValue>) -> bool {
    tags(headers, &header::IF_NONE_MATCH).is_some_and(|tags| tags == ["*"])
        || etag.is_some_and(|etag| has_kept(headers, etag))
}

/// Returns whether the caller has stored the answer with this ETag. Weak and strong tags match each other
/// (RFC 9110, 13.1.2).
pub(super) fn has_kept(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let kept = tags(headers, &header::IF_NONE_MATCH).unwrap_or_default();
    etag.to_str().is_ok_and(|etag| kept.iter().any(|tag| opaque(tag) == opaque(etag)))
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

/// Reads `Kontor-Position`, the position that the answer must reflect at least, and the time that the caller
/// prefers to wait for it, at most `limit`.
pub(super) fn at_least(
    headers: &HeaderMap,
    limit: Duration,
    stopping: &watch::Receiver<bool>,
) -> Result<AtLeast, Problem> {
    let refused = || Problem::invalid_header("Kontor-Position must be the number from an earlier reply.");
    let position = headers.get(POSITION).map(position);
    Ok(AtLeast {
        position: position.map(|position| position.ok_or_else(refused)).transpose()?,
        wait: prefer_wait(headers, limit),
        stopping: Some(stopping.clone()),
    })
}

/// Reads a position of the log, which never exceeds the integers of SQLite.
pub(super) fn position(value: &HeaderValue) -> Option<Position> {
    let number: Option<u64> = value.to_str().ok().and_then(decimal);
    number.filter(|number| i64::try_from(*number).is_ok()).map(Position::new)
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
    let of_key = || key().map(|key| CommandId::from_key(&key).shared().into());
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

/// Returns the headers `Cookie`. One that is not ASCII has no cookie of this host.
pub(super) fn cookies(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).collect()
}

/// Reads `Kontor-Actor`: the user on whose behalf the caller says it acts. Names are not only English, so
/// UTF-8 is accepted.
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

/// Returns the media type that the caller prefers among these, of which the first is the best. `None`: it
/// accepts none of them. A malformed `Accept` counts as none.
pub(super) fn preferred<'a>(
    headers: &HeaderMap,
    available: &'a [MediaType<'a>],
) -> Option<&'a MediaType<'a>> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accept = values.collect::<Vec<_>>().join(", ");
    match Accept::from_str(&accept) {
        Ok(accept) if accept.media_types().next().is_some() => accept.negotiate(available),
        _ => available.first(),
    }
}

/// Returns whether the body is encoded, so that it cannot be read as it is.
pub(super) fn content_is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
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
mod tests;
