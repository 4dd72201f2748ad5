//! Commands: from the request to what is asked, and from its outcome to the response.

use std::borrow::Cow;

use axum::body::BodyDataStream;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::body;
use super::headers;
use super::{Call, Site};
use crate::contract::{CommandRoute, Problem, Schema, payload};
use crate::edge::command::{Asked, Done, carry_out};

/// Answers 202 if the command started a saga, unless the reply was to wait for its end and did; otherwise 201 if the command
/// made its aggregate, and else 200.
pub(super) async fn answer(
    site: &Site,
    route: &CommandRoute,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    headers::same_site(call.headers)?;
    let id = call.placeholders.get("id").map(|_| call.placeholder("id")).transpose()?;
    let wait = headers::prefer_wait(call.headers, site.edge.limits.wait);
    let asked = Asked {
        aggregate: route.aggregate.clone(),
        command: route.command.clone(),
        id: id.map(Cow::into_owned),
        key: headers::idempotency_key(call.headers, headers::IDEMPOTENCY_KEY)?,
        condition: headers::if_match(call.headers)?,
        payload: payload(&route.payload, &body::read(&site.edge.limits, call.headers, body).await?)?,
        wait,
        correlation_id: call.request_id.clone(),
    };
    let done = carry_out(&site.edge, asked, site.stopping.clone()).await?;
    let mut response = reply(route, &done)?;
    if let Some(wait) = wait {
        let applied = headers::wait_applied(wait).map(|applied| (headers::PREFERENCE_APPLIED, applied));
        response.headers_mut().extend(applied);
    }
    Ok(response)
}

fn reply(route: &CommandRoute, done: &Done) -> Result<Response, Problem> {
    let unfinished = done.unfinished();
    let status = match unfinished {
        Some(_) => StatusCode::ACCEPTED,
        None if done.created => StatusCode::CREATED,
        None => StatusCode::OK,
    };
    let mut response = super::json(status, &done.reply())?;
    let headers = response.headers_mut();
    headers.insert(headers::POSITION, done.accepted.position.get().into());
    headers.extend(headers::etag(done.accepted.version).map(|etag| (header::ETAG, etag)));
    let aggregate = route.location.as_ref().and_then(|location| location.of_id(done.accepted.stream.id()));
    match unfinished {
        Some(saga) => {
            let saga = HeaderValue::try_from(["/sagas/", saga.id.as_str()].concat());
            headers.extend(saga.map(|saga| (header::LOCATION, saga)));
            headers.extend(aggregate.map(|aggregate| (header::CONTENT_LOCATION, aggregate)));
        }
        None if done.created => headers.extend(aggregate.map(|aggregate| (header::LOCATION, aggregate))),
        None => {}
    }
    Ok(response)
}

/// What a person sends to the host itself, in the body.
pub(super) async fn received<T: DeserializeOwned>(
    site: &Site,
    schema: &Schema,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<T, Problem> {
    headers::same_site(call.headers)?;
    let body = payload(schema, &body::read(&site.edge.limits, call.headers, body).await?)?;
    // A schema takes 7.0 for a whole number, and numbers of any size.
    body.read().map_err(|error| {
        let detail = format!("The payload cannot be read: {error}.");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-payload", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Accepted;
    use crate::contract::fixtures::manifest;
    use crate::contract::{Action, Found, RouteTable};
    use crate::edge::command::Started;
    use crate::model::{Json, NewEvent, Position, StreamId, Version};
    use crate::saga::SagaState;

    #[test]
    fn the_status_and_the_locations_say_what_happened() {
        let table = RouteTable::<()>::new([], [&manifest()]).unwrap();
        let Found::Endpoint(endpoint, _) = table.find(&axum::http::Method::POST, "/orders") else { panic!() };
        let Action::Command(route) = &endpoint.action else { panic!() };
        let accepted = Accepted {
            stream: StreamId::new("order", "7").unwrap(),
            version: Version::new(1),
            position: Position::new(42),
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
            let response = reply(route, &Done { accepted: accepted.clone(), saga, created }).unwrap();
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(response.status().as_u16(), status, "{state:?}");
            assert_eq!(header("location"), location, "{state:?}");
            assert_eq!(header("content-location"), content_location, "{state:?}");
            assert_eq!((header("etag"), header("kontor-position")), (Some("\"1\""), Some("42")));
        }
    }
}
