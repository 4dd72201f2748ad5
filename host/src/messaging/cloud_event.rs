//! An event of the log as a message: CloudEvents 1.0 in binary mode, by the protocol binding for NATS. The
//! values of the headers are [encoded](super::header).
//!
//! | header | content |
//! |---|---|
//! | `Nats-Msg-Id` | the event's permanent place: `order/A-1/7`, its stream and version |
//! | `ce-id` | the event's id. Unique in its source, because another aggregate may use the same key |
//! | `ce-source` | `urn:kontor:<id of the log>/streams/order/A-1`, or with `messaging.source` in front |
//! | `ce-type` | `order.order-confirmed`, the service and the event, behind `messaging.type_prefix` |
//! | `ce-datacontenttype` | `application/json`; as `content-type` for clients that know no CloudEvents |
//! | `ce-subject` | the aggregate's id |
//! | `ce-time` | the time at which the command was decided |
//! | `ce-position` `ce-version` | the place in the log and in the stream |
//! | `ce-correlationid` `ce-causationid` | the id of the original request, and the event that led to the command |
//! | `ce-dataref` | the URL of the payload, if the event is larger than the stream or the servers take |

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;

use super::header::{decode, encode};
use super::options::MessagingOptions;
use crate::clock::rfc3339;
use crate::model::{CommitHash, Position, Recorded, hashed_uuid};

/// The subjects of all events.
pub(super) const SUBJECTS: &str = "kontor.events.>";
/// The header with the event's position in the log.
pub(super) const POSITION: &str = "ce-position";

/// Returns an event's subject: `kontor.events.<service>.<event>.<aggregate id>`
pub(super) fn subject(service: &str, event: &Recorded) -> String {
    format!("kontor.events.{service}.{}.{}", event.name, token(event.stream.id()))
}

/// Returns an id as one token of a subject. Dots would divide it, so they are written as in a URL; an id has
/// no `%`.
pub(super) fn token(id: &str) -> String {
    id.replace('.', "%2E")
}

/// Returns the id of an event's message, which is unique in this log forever.
pub(super) fn message_id(event: &Recorded) -> String {
    encode(&format!("{}/{}", event.stream, event.version))
}

/// Returns the id of an event's message on a subject that its service declares. It differs from that on
/// another subject, or the servers would drop one of the two as a duplicate.
pub(super) fn message_id_on(subject: &str, event: &Recorded) -> String {
    encode(&format!("{}/{}/{subject}", event.stream, event.version))
}

/// Reverses [`token`].
pub(super) fn id_of(token: &str) -> String {
    token.replace("%2E", ".")
}

/// The beginnings of the attributes that tell the events of one installation from those of another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prefixes {
    source: String,
    r#type: String,
}

impl Prefixes {
    /// Returns those of the options. `first`: the hash of the log's first commit, which all hosts of the log
    /// share, and no other log has. Components get their random numbers from it, so it must not be published.
    pub(super) fn new(options: &MessagingOptions, first: CommitHash) -> Self {
        let urn = || format!("urn:kontor:{}", hashed_uuid(&[b"source of events", first.as_bytes()]));
        let source = options.source.as_deref().map(|source| source.trim_end_matches('/').to_owned());
        let r#type = options.type_prefix.as_ref().map(|prefix| format!("{prefix}."));
        Self { source: source.unwrap_or_else(urn), r#type: r#type.unwrap_or_default() }
    }
}

/// Returns the headers of an event's message.
pub(super) fn headers(prefixes: &Prefixes, service: &str, event: &Recorded) -> HeaderMap {
    let Prefixes { source, r#type } = prefixes;
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, message_id(event));
    headers.insert("content-type", "application/json");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", &event.id()),
        ("ce-source", &format!("{source}/streams/{}", event.stream)),
        ("ce-type", &format!("{type}{service}.{}", event.name)),
        ("ce-datacontenttype", "application/json"),
        ("ce-subject", event.stream.id()),
        ("ce-time", &rfc3339(event.meta.time_ms)),
        (POSITION, &event.position.to_string()),
        ("ce-version", &event.version.to_string()),
        ("ce-correlationid", event.meta.correlation_id.as_str()),
    ] {
        headers.insert(name, encode(value));
    }
    if let Some(causation) = &event.meta.causation_id {
        headers.insert("ce-causationid", encode(causation));
    }
    headers
}

/// Adds the URL at which the host shows the event, for a payload that is too large.
pub(super) fn refer(headers: &mut HeaderMap, event: &Recorded) {
    let url = format!("/streams/{}?after={}&limit=1", event.stream, event.version.before(1));
    headers.insert("ce-dataref", encode(&url));
}

/// Returns the position of a published event and its message id, or none if a host did not write the message.
pub(super) fn place(headers: &HeaderMap) -> Option<(Position, &str)> {
    let position = decode(headers.get(POSITION)?.as_str()).parse().ok()?;
    Some((position, headers.get(NATS_MESSAGE_ID)?.as_str()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{CommandId, CommitHash, Json, Meta, StreamId, Version};

    fn event(id: &str) -> Recorded {
        decided(id, "s/confirm")
    }

    fn decided(id: &str, command_id: &str) -> Recorded {
        Recorded {
            position: Position::new(42),
            stream: StreamId::new("order", id).unwrap(),
            version: Version::new(7),
            index: 0,
            hash: CommitHash::GENESIS,
            name: "order-confirmed".into(),
            payload: Json::empty_object(),
            meta: Arc::new(Meta {
                command_id: CommandId::from(command_id.to_owned()),
                command: "confirm".into(),
                fingerprint: 1,
                correlation_id: "r".into(),
                causation_id: Some("c/0".into()),
                digest: None,
                time_ms: 0,
                actor: "saga".into(),
                ..Meta::default()
            }),
        }
    }

    #[test]
    fn an_id_is_always_one_token_of_the_subject() {
        for (id, expected) in [
            ("A-1", "kontor.events.order.order-confirmed.A-1"),
            ("a.b:c~", "kontor.events.order.order-confirmed.a%2Eb:c~"),
        ] {
            let event = event(id);
            assert_eq!(subject("order", &event), expected);
            assert_eq!(id_of(expected.rsplit('.').next().unwrap()), id);
        }
    }

    #[test]
    fn the_headers_are_those_of_a_cloud_event() {
        let mut headers = headers(&prefixes(), "order", &event("A-1"));
        refer(&mut headers, &event("A-1"));
        for (name, value) in [
            ("Nats-Msg-Id", "order/A-1/7"),
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "s/confirm/0"),
            ("ce-source", "https://shop.example/streams/order/A-1"),
            ("ce-type", "example.shop.order.order-confirmed"),
            ("ce-datacontenttype", "application/json"),
            ("ce-subject", "A-1"),
            ("ce-time", "1970-01-01T00:00:00.000Z"),
            ("ce-position", "42"),
            ("ce-version", "7"),
            ("ce-correlationid", "r"),
            ("ce-causationid", "c/0"),
            ("ce-dataref", "/streams/order/A-1?after=6&limit=1"),
        ] {
            assert_eq!(headers.get(name).map(|value| value.as_str()), Some(value), "{name}");
        }
        assert_eq!(place(&headers), Some((Position::new(42), "order/A-1/7")));
        assert_eq!(place(&HeaderMap::new()), None);
    }

    fn prefixes() -> Prefixes {
        let options = MessagingOptions {
            source: Some("https://shop.example/".to_owned()),
            type_prefix: Some("example.shop".to_owned()),
            ..MessagingOptions::default()
        };
        Prefixes::new(&options, CommitHash::GENESIS)
    }

    #[test]
    fn no_name_breaks_a_header() {
        let event = decided("A-1", "s/reserve-Cup\r\nblue \"k\u{f6}ln\" 5%");
        let headers = headers(&prefixes(), "order", &event);
        let id = "s/reserve-Cup%0D%0Ablue%20%22k%C3%B6ln%22%205%25/0";
        assert_eq!(headers.get("ce-id").unwrap().as_str(), id);
        assert_eq!(place(&headers), Some((Position::new(42), "order/A-1/7")));
    }

    #[test]
    fn each_log_is_a_source_of_its_own_and_does_not_show_its_first_hash() {
        let options = MessagingOptions::default();
        let [one, other] = [1, 2].map(|byte| Prefixes::new(&options, CommitHash::new([byte; 32])));
        assert_ne!(one, other);
        assert_eq!(one, Prefixes::new(&options, CommitHash::new([1; 32])));
        let id = one.source.strip_prefix("urn:kontor:").unwrap();
        assert_eq!(id.parse::<uuid::Uuid>().unwrap().get_version_num(), 8);
        assert!(!id.contains("01010101"), "{id}");
        assert_eq!(one.r#type, "");
    }

    #[test]
    fn a_message_on_another_subject_has_another_id() {
        let event = event("a.b");
        let [one, other] = ["shop.a%2Eb", "crm.a%2Eb"].map(|subject| message_id_on(subject, &event));
        assert_eq!((&*one, &*other), ("order/a.b/7/shop.a%252Eb", "order/a.b/7/crm.a%252Eb"));
    }
}
