//! The history of one aggregate, and its state at a version of the past.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::page::{Page, after_and_limit};
use super::parameters::Parameters;
use super::{Call, Site, json};
use crate::clock::rfc3339;
use crate::contract::Problem;
use crate::model::{CommandId, Digest, Json, Position, Recorded, StreamId, Version};

/// An event as JSON.
#[derive(Serialize)]
pub(super) struct EventBody<'e> {
    pub(super) position: Position,
    stream: &'e str,
    version: Version,
    name: &'e str,
    payload: &'e Json,
    id: String,
    command_id: &'e CommandId,
    command: &'e str,
    correlation_id: &'e str,
    causation_id: Option<&'e str>,
    digest: Option<Digest>,
    /// RFC 3339
    time: String,
    actor: &'e str,
}

#[derive(Serialize)]
struct Past<'v> {
    id: &'v str,
    version: Version,
    state: Json,
}

impl<'e> From<&'e Recorded> for EventBody<'e> {
    fn from(event: &'e Recorded) -> Self {
        Self {
            position: event.position,
            stream: event.stream.as_str(),
            version: event.version,
            name: event.name.as_str(),
            payload: &event.payload,
            id: event.id(),
            command_id: &event.meta.command_id,
            command: event.meta.command.as_str(),
            correlation_id: event.meta.correlation_id.as_str(),
            causation_id: event.meta.causation_id.as_deref(),
            digest: event.meta.digest,
            time: rfc3339(event.meta.time_ms),
            actor: event.meta.actor.as_str(),
        }
    }
}

/// `GET /streams/{aggregate}/{id}`: with `?at=VERSION` the state then, otherwise the events, oldest first.
pub(super) async fn answer(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    let stream = StreamId::new(&call.placeholder("aggregate")?, &call.placeholder("id")?)?;
    let parameters = Parameters::parse(call.query)?.only(&["after", "limit", "at"])?;
    if let Some(at) = parameters.number("at")? {
        return past(site, &stream, at).await;
    }
    let (after, limit) = after_and_limit(&parameters)?;
    let events = site.edge.log.read(&stream, after, limit).await?;
    if events.is_empty() && after == Version::START {
        return Err(Problem::not_found(format!(
            "There is no {} with the id {}.",
            stream.aggregate(),
            stream.id()
        )));
    }
    json(
        StatusCode::OK,
        &Page::new(events.iter().map(EventBody::from).collect(), limit, |event| event.version),
    )
}

async fn past(site: &Site, stream: &StreamId, at: Version) -> Result<Response, Problem> {
    let Some(viewed) = site.edge.dispatch.view(stream, Some(at)).await? else {
        let (aggregate, id) = (stream.aggregate(), stream.id());
        return Err(Problem::not_found(format!("At version {at} there is no {aggregate} with the id {id}.")));
    };
    json(StatusCode::OK, &Past { id: stream.id(), version: viewed.version, state: viewed.view })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::Meta;

    fn event(version: u64) -> Recorded {
        Recorded {
            position: Position::new(40 + version),
            stream: StreamId::new("order", "7").unwrap(),
            version: Version::new(version),
            index: 0,
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
                actor: "anonymous".into(),
            }),
        }
    }

    #[test]
    fn an_event_is_shown_with_all_that_the_log_knows() {
        let shown: Value = serde_json::to_value(EventBody::from(&event(1))).unwrap();
        let expected = json!({
            "position": 41, "stream": "order/7", "version": 1, "name": "order-created", "payload": {"total": 1},
            "id": "c/0", "command_id": "c", "command": "create", "correlation_id": "r", "causation_id": null,
            "digest": null, "time": "1970-01-01T00:00:00.000Z", "actor": "anonymous",
        });
        assert_eq!(shown, expected);
    }
}
