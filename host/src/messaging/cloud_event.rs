//! An event of the log as a message: CloudEvents 1.0 in binary mode, by the protocol binding for NATS.
//!
//! | header | content |
//! |---|---|
//! | `Nats-Msg-Id` | the event's permanent place: `order/A-1/7`, its stream and version |
//! | `ce-id` | the event's id. Unique in its source, because another aggregate may use the same key |
//! | `ce-source` | `/streams/order/A-1`, where the host shows the aggregate's history |
//! | `ce-type` | `order.order-confirmed`, the service and the event |
//! | `ce-subject` | the aggregate's id |
//! | `ce-time` | the time at which the command was decided |
//! | `ce-position` `ce-version` | the place in the log and in the stream |
//! | `ce-correlationid` `ce-causationid` | the id of the original request, and the event that led to the command |
//! | `ce-dataref` | the URL of the payload, if the event is larger than the servers' largest message |

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;

use crate::clock::rfc3339;
use crate::model::{Position, Recorded};

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
    format!("{}/{}", event.stream, event.version)
}

/// Reverses [`token`].
pub(super) fn id_of(token: &str) -> String {
    token.replace("%2E", ".")
}

/// Returns the headers of an event's message.
pub(super) fn headers(service: &str, event: &Recorded) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, message_id(event));
    headers.insert("content-type", "application/json");
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", event.id());
    headers.insert("ce-source", format!("/streams/{}", event.stream));
    headers.insert("ce-type", format!("{service}.{}", event.name));
    headers.insert("ce-subject", event.stream.id());
    headers.insert("ce-time", rfc3339(event.meta.time_ms));
    headers.insert(POSITION, event.position.to_string());
    headers.insert("ce-version", event.version.to_string());
    headers.insert("ce-correlationid", event.meta.correlation_id.as_str());
    if let Some(causation) = &event.meta.causation_id {
        headers.insert("ce-causationid", &**causation);
    }
    headers
}

/// Adds the URL at which the host shows the event, for a payload that is too large.
pub(super) fn refer(headers: &mut HeaderMap, event: &Recorded) {
    headers
        .insert("ce-dataref", format!("/streams/{}?after={}&limit=1", event.stream, event.version.before(1)));
}

/// Returns the position of a published event and its message id, or none if a host did not write the message.
pub(super) fn place(headers: &HeaderMap) -> Option<(Position, &str)> {
    let position = headers.get(POSITION)?.as_str().parse().ok()?;
    Some((position, headers.get(NATS_MESSAGE_ID)?.as_str()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{CommandId, CommitHash, Json, Meta, StreamId, Version};

    fn event(id: &str) -> Recorded {
        Recorded {
            position: Position::new(42),
            stream: StreamId::new("order", id).unwrap(),
            version: Version::new(7),
            index: 0,
            hash: CommitHash::GENESIS,
            name: "order-confirmed".into(),
            payload: Json::empty_object(),
            meta: Arc::new(Meta {
                command_id: CommandId::from("s/confirm".to_owned()),
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
        let mut headers = headers("order", &event("A-1"));
        refer(&mut headers, &event("A-1"));
        for (name, value) in [
            ("Nats-Msg-Id", "order/A-1/7"),
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "s/confirm/0"),
            ("ce-source", "/streams/order/A-1"),
            ("ce-type", "order.order-confirmed"),
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
}
