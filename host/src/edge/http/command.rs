//! Commands: from the request to a [`Command`], and from its outcome to the reply.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;

use super::action::CommandRoute;
use super::body;
use super::headers::{self, IfMatch};
use super::problem::Problem;
use super::schema::Schema;
use super::{Call, Site};
use crate::dispatch::Accepted;
use crate::error::CallError;
use crate::model::{Command, CommandId, Intent, Json, Origin, Position, StreamId, Version};
use crate::saga::{SagaId, SagaState};

/// Who sends commands: nobody is asked for a name yet.
const ACTOR: &str = "anonymous";

#[derive(Serialize)]
struct Reply<'r> {
    id: &'r str,
    version: Version,
    position: Position,
    events: Vec<&'r str>,
    state: Option<&'r Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saga: Option<&'r Started>,
}

/// The saga that a command started, as far as it is known when the reply goes out.
#[derive(Serialize)]
struct Started {
    id: SagaId,
    state: SagaState,
    /// Whether the reply was to come when it has ended.
    #[serde(skip)]
    awaited: bool,
}

/// Answers 202 if the command started a saga, unless the reply was to wait for its end and did; otherwise 201 if the command
/// made its aggregate, and else 200.
pub(super) async fn answer(
    site: &Site,
    route: &CommandRoute,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    headers::same_site(call.headers)?;
    let (id, repeatable) = match headers::idempotency_key(call.headers)? {
        Some(id) => (id, true),
        None => (CommandId::new(), false),
    };
    let stream = match call.placeholders.get("id") {
        Some(_) => StreamId::new(&route.aggregate, &call.placeholder("id")?)?,
        None => StreamId::new(&route.aggregate, id.as_str())?,
    };
    let condition = headers::if_match(call.headers)?;
    let payload = payload(&route.payload, &body::read(&site.edge.limits, call.headers, body).await?)?;
    let command = Command {
        id,
        repeatable,
        expected_version: expected_version(site, &stream, condition).await?,
        stream,
        name: route.command.clone(),
        payload,
        intent: Intent::Decide,
        origin: Origin { actor: ACTOR.into(), correlation_id: call.request_id.clone(), causation_id: None },
    };
    let accepted = site.edge.dispatch.submit(command).await.map_err(|error| refusal(site, error))?;
    let created = !accepted.events.is_empty() && accepted.version == accepted.events.len() as Version;
    let wait = headers::prefer_wait(call.headers, site.edge.limits.wait);
    let (accepted, saga) = follow(site, accepted, repeatable, wait).await?;
    let mut response = reply(route, &accepted, saga.as_ref(), created)?;
    if let Some(wait) = wait {
        let applied = headers::wait_applied(wait).map(|applied| (headers::PREFERENCE_APPLIED, applied));
        response.headers_mut().extend(applied);
    }
    Ok(response)
}

async fn expected_version(
    site: &Site,
    stream: &StreamId,
    condition: Option<IfMatch>,
) -> Result<Option<Version>, Problem> {
    match condition {
        None => Ok(None),
        Some(IfMatch::Version(version)) => Ok(Some(version)),
        // Streams never disappear, so it is enough to look before.
        Some(IfMatch::Exists) if site.edge.log.read(stream, 0, 1).await?.is_empty() => {
            Err(Problem::version_mismatch(None, 0).reflecting(head(site)))
        }
        Some(IfMatch::Exists) => Ok(None),
    }
}

/// A "no" was decided on what is in the log by now, and says so like any other reply: whoever reads that far sees why. A
/// fault reflects nothing.
fn refusal(site: &Site, error: CallError) -> Problem {
    let decided = matches!(error, CallError::Rejected(_) | CallError::VersionMismatch { .. });
    let problem = Problem::from(error);
    if decided { problem.reflecting(head(site)) } else { problem }
}

fn head(site: &Site) -> Position {
    *site.edge.log.head().borrow()
}

/// Looks at the saga that the command started. Without `wait` the answer is that of the command, as recorded, however often
/// it is sent; with it, the aggregate as it stands when the saga has ended or the time is over, and a position that covers
/// all that the saga did.
async fn follow(
    site: &Site,
    accepted: Accepted,
    repeatable: bool,
    wait: Option<Duration>,
) -> Result<(Accepted, Option<Started>), Problem> {
    let Some(id) = accepted.saga.clone() else {
        return Ok((accepted, None));
    };
    let sagas = &site.edge.sagas;
    let status = match wait {
        None if repeatable => sagas.journaled(&id).await?,
        // It was started just now.
        None => None,
        Some(wait) => tokio::select! {
            status = sagas.wait(&id, wait) => status?,
            () = site.stopped() => sagas.journaled(&id).await?,
        },
    };
    // A saga whose journal has not begun yet is about to run.
    let state = status.map_or(SagaState::Running, |status| status.state);
    let saga = Some(Started { id, state, awaited: wait.is_some() });
    if wait.is_none() {
        return Ok((accepted, saga));
    }
    let position = accepted.position.max(head(site));
    let viewed = site.edge.dispatch.view(&accepted.stream, None).await?;
    let (version, view) = match viewed {
        Some(viewed) => (viewed.version, Some(viewed.view)),
        None => (accepted.version, None),
    };
    Ok((Accepted { version, view, position, ..accepted }, saga))
}

fn reply(
    route: &CommandRoute,
    accepted: &Accepted,
    saga: Option<&Started>,
    created: bool,
) -> Result<Response, Problem> {
    let unfinished = saga.filter(|saga| !(saga.awaited && saga.state.ended()));
    let status = match unfinished {
        Some(_) => StatusCode::ACCEPTED,
        None if created => StatusCode::CREATED,
        None => StatusCode::OK,
    };
    let id = accepted.stream.id();
    let body = Reply {
        id,
        version: accepted.version,
        position: accepted.position,
        events: accepted.events.iter().map(|event| &*event.name).collect(),
        state: accepted.view.as_ref(),
        saga,
    };
    let mut response = super::json(status, &body)?;
    let headers = response.headers_mut();
    headers.insert(headers::POSITION, accepted.position.into());
    headers.extend(headers::etag(accepted.version).map(|etag| (header::ETAG, etag)));
    let aggregate = route.location.as_ref().and_then(|location| location.of_id(id));
    match unfinished {
        Some(saga) => {
            let saga = HeaderValue::try_from(["/sagas/", &saga.id].concat());
            headers.extend(saga.map(|saga| (header::LOCATION, saga)));
            headers.extend(aggregate.map(|aggregate| (header::CONTENT_LOCATION, aggregate)));
        }
        None if created => headers.extend(aggregate.map(|aggregate| (header::LOCATION, aggregate))),
        None => {}
    }
    Ok(response)
}

/// The body of what a person sends to the host itself.
pub(super) async fn received(
    site: &Site,
    schema: &Schema,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Json, Problem> {
    headers::same_site(call.headers)?;
    payload(schema, &body::read(&site.edge.limits, call.headers, body).await?)
}

/// Checks a body against the command's schema. The text itself goes on as it came. No body at all stands for `{}`.
pub(super) fn payload(schema: &Schema, body: &[u8]) -> Result<Json, Problem> {
    let broken = |reason: String| Problem::new(StatusCode::BAD_REQUEST, "invalid-json", reason);
    let body = if body.is_empty() { b"{}" } else { body };
    let text =
        std::str::from_utf8(body).map_err(|error| broken(format!("The body is no UTF-8: {error}.")))?;
    let value: Value =
        serde_json::from_str(text).map_err(|error| broken(format!("The body is no JSON: {error}.")))?;
    schema.check(&value).map_err(|violations| {
        Problem::violations(
            "invalid-payload",
            "The payload does not follow the command's schema.",
            violations,
        )
    })?;
    Json::parse(text.to_owned()).map_err(|error| broken(format!("The body is no JSON: {error}.")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::edge::http::action::Action;
    use crate::edge::http::fixtures::manifest;
    use crate::edge::http::routes::{Found, RouteTable};
    use crate::model::NewEvent;

    fn schema() -> Schema {
        Schema::compile(&json!({"type": "object", "properties": {"quantity": {"type": "integer"}}})).unwrap()
    }

    #[test]
    fn a_payload_goes_on_as_it_came() {
        for (body, text) in [("", "{}"), (" {\"quantity\" : 1}\n", "{\"quantity\" : 1}")] {
            assert_eq!(payload(&schema(), body.as_bytes()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_payload_that_is_wrong_is_refused() {
        for (body, status, code) in [
            ("{\"quantity\": 1,}", 400, "invalid-json"),
            ("[] []", 400, "invalid-json"),
            ("{\"quantity\": \"x\"}", 422, "invalid-payload"),
            ("[]", 422, "invalid-payload"),
        ] {
            let problem = payload(&schema(), body.as_bytes()).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code), "{body}");
        }
        assert!(payload(&schema(), b"{\"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn the_status_and_the_locations_say_what_happened() {
        let table = RouteTable::new([&manifest()]).unwrap();
        let Found::Endpoint(endpoint, _) = table.find(&axum::http::Method::POST, "/orders") else { panic!() };
        let Action::Command(route) = &endpoint.action else { panic!() };
        let accepted = Accepted {
            stream: StreamId::new("order", "7").unwrap(),
            version: 1,
            position: 42,
            events: vec![NewEvent { name: "order-created".into(), payload: Json::empty_object() }],
            view: None,
            saga: None,
        };
        let table = [
            (None, true, 201, Some("/orders/7"), None),
            (None, false, 200, None, None),
            (Some(SagaState::Running), true, 202, Some("/sagas/s"), Some("/orders/7")),
            (Some(SagaState::Waiting), true, 202, Some("/sagas/s"), Some("/orders/7")),
            (Some(SagaState::Parked), false, 202, Some("/sagas/s"), Some("/orders/7")),
            (Some(SagaState::Completed), true, 201, Some("/orders/7"), None),
            (Some(SagaState::Compensated), false, 200, None, None),
            (Some(SagaState::Resolved), false, 200, None, None),
        ];
        for (state, created, status, location, content_location) in table {
            let saga = state.map(|state| Started { id: "s".into(), state, awaited: true });
            let response = reply(route, &accepted, saga.as_ref(), created).unwrap();
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(response.status().as_u16(), status, "{state:?}");
            assert_eq!(header("location"), location, "{state:?}");
            assert_eq!(header("content-location"), content_location, "{state:?}");
            assert_eq!((header("etag"), header("kontor-position")), (Some("\"1\""), Some("42")));
        }
    }
}
