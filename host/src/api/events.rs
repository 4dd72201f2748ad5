//! The events of the log and the states of aggregates.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::model::{
    Actor, AggregateName, CommandId, CommandName, CorrelationId, Digest, EventName, Json, Position, Recorded,
    ServiceName, StreamId, Version,
};

/// An event as the log has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The position in the log.
    pub position: Position,
    /// The stream: `order/A-1`.
    pub stream: StreamId,
    /// The version of the stream after the event.
    pub version: Version,
    /// The name of the event: `order-created`.
    pub name: EventName,
    /// The content of the event, by the schema of its service.
    pub payload: Json,
    /// The id of the event: that of its command and a number.
    pub id: String,
    /// The id of the command that recorded the event.
    pub command_id: CommandId,
    /// The name of that command.
    pub command: CommandName,
    /// The id that everything has in common that follows from one request.
    pub correlation_id: CorrelationId,
    /// The id of the event that led to the command; null if the command came from outside.
    pub causation_id: Option<Arc<str>>,
    /// The digest of the component that decided; null for events of the host itself.
    pub digest: Option<Digest>,
    /// The time of recording.
    pub time: Time,
    /// The sender of the command.
    pub actor: Actor,
    /// The user for whom the actor says it acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Actor>,
    /// The saga or the message through which the actor acted: `saga:0199…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Actor>,
}

impl From<&Recorded> for Event {
    fn from(event: &Recorded) -> Self {
        let meta = &event.meta;
        Self {
            position: event.position,
            stream: event.stream.clone(),
            version: event.version,
            name: event.name.clone(),
            payload: event.payload.clone(),
            id: event.id(),
            command_id: meta.command_id.clone(),
            command: meta.command.clone(),
            correlation_id: meta.correlation_id.clone(),
            causation_id: meta.causation_id.clone(),
            digest: meta.digest,
            time: Time(meta.time_ms),
            actor: meta.actor.clone(),
            on_behalf_of: meta.on_behalf_of.clone(),
            via: meta.via.clone(),
        }
    }
}

/// The parameters of `GET /events`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// The position after which the events begin. Default: 0, the beginning of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
    /// Maximum number of events on a page of JSON. Default: 100; maximum: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
    /// Only the events of this stream: `order/A-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// Only the events of these aggregates: `order`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<AggregateName>,
    /// Only the events of the aggregates of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Only the events with this name: `order-created`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventName>,
    /// Only the events that follow from the request with this correlation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<CorrelationId>,
}

impl EventsQuery {
    /// Returns whether an event is asked for, as far as the event itself says. Its service does not stand
    /// in it.
    pub fn admits(&self, event: &Recorded) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        }
        is(&self.stream, &event.stream)
            && self.aggregate.as_ref().is_none_or(|wanted| *wanted == event.stream.aggregate())
            && is(&self.event, &event.name)
            && is(&self.correlation, &event.meta.correlation_id)
    }
}

/// The parameters of `GET /streams/{aggregate}/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamQuery {
    /// The start of the page: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Version>,
    /// Maximum number of events to return. Default: 100; maximum: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
    /// Returns the state at this version instead of the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Version>,
}

/// The state of an aggregate at a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AggregateState {
    /// The id of the aggregate.
    pub id: String,
    /// The version of the state.
    pub version: Version,
    /// The aggregate's view at that version.
    pub state: Json,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::{CommitHash, Meta, StreamId};

    fn event(version: u64) -> Recorded {
        Recorded {
            position: Position::new(40 + version),
            stream: StreamId::new("order", "7").unwrap(),
            version: Version::new(version),
            index: 0,
            hash: CommitHash::GENESIS,
            name: "order-created".into(),
            payload: Json::parse(r#"{"total":1}"#.to_owned()).unwrap(),
            meta: Arc::new(Meta {
                command_id: CommandId::from("c".to_owned()),
                command: "create".into(),
                fingerprint: 1,
                correlation_id: "r".into(),
                causation_id: None,
                digest: None,
                time_ms: 0,
                actor: "ann".into(),
                on_behalf_of: Some("bob".into()),
                via: Some("saga:1".into()),
                ..Meta::default()
            }),
        }
    }

    #[test]
    fn an_event_is_shown_with_all_that_the_log_knows() {
        let shown: Value = serde_json::to_value(Event::from(&event(1))).unwrap();
        let expected = json!({
            "position": 41, "stream": "order/7", "version": 1, "name": "order-created",
            "payload": {"total": 1},
            "id": "c/0", "command_id": "c", "command": "create", "correlation_id": "r", "causation_id": null,
            "digest": null, "time": "1970-01-01T00:00:00.000Z", "actor": "ann",
            "on_behalf_of": "bob", "via": "saga:1",
        });
        assert_eq!(shown, expected);
    }
}
