//! Commands over HTTP: from the request to a [`CommandRequest`], and from the [`CommandResponse`] to the
//! response.

use std::borrow::Cow;

use axum::body::BodyDataStream;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::{Call, HttpServer, body, headers, json_reply};
use crate::contract::{CommandRoute, Problem, payload};
use crate::edge::command::{CommandRequest, CommandResponse, execute};

/// Answers 202 if the command started a saga, unless the reply has waited for its end; otherwise 201 if the
/// command created its aggregate, and else 200.
pub(super) async fn answer(
    server: &HttpServer,
    route: &CommandRoute,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    // Before anything of the request is read: most of them are refused when there are too many.
    server.host.admission.check(route.aggregate.as_str())?;
    let id = call.placeholders.get("id").map(|_| call.placeholder("id")).transpose()?;
    let wait = headers::prefer_wait(call.headers, server.host.limits.wait);
    let request = CommandRequest {
        aggregate: route.aggregate.clone(),
        command: route.command.clone(),
        id: id.map(Cow::into_owned),
        key: headers::idempotency_key(call.headers, headers::IDEMPOTENCY_KEY)?,
        precondition: headers::precondition(call.headers)?,
        payload: payload(&body::read(&server.host.limits, call.headers, body).await?)?,
        wait,
        at_least: server.at_least(call.headers)?,
        correlation_id: call.request_id.clone(),
        caller: call.caller.clone(),
    };
    let executed = execute(&server.host, request, server.stopping.clone()).await?;
    let mut response = reply(route, &executed)?;
    if let Some(wait) = wait {
        let applied = headers::wait_applied(wait).map(|applied| (headers::PREFERENCE_APPLIED, applied));
        response.headers_mut().extend(applied);
    }
    Ok(response)
}

fn reply(route: &CommandRoute, executed: &CommandResponse) -> Result<Response, Problem> {
    let unfinished = executed.unfinished_saga();
    let status = match unfinished {
        Some(_) => StatusCode::ACCEPTED,
        None if executed.created => StatusCode::CREATED,
        None => StatusCode::OK,
    };
    let mut response = json_reply(status, &executed.reply())?;
    let headers = response.headers_mut();
    headers.insert(headers::POSITION, executed.position.get().into());
    headers.extend(headers::etag(executed.version).map(|etag| (header::ETAG, etag)));
    let aggregate = route.location.as_ref().and_then(|location| location.of_id(executed.stream.id()));
    match unfinished {
        Some(saga) => {
            let saga = HeaderValue::try_from(["/sagas/", saga.id.as_str()].concat());
            headers.extend(saga.map(|saga| (header::LOCATION, saga)));
            // The body is about the aggregate, not a representation of it (RFC 9110, 8.7).
            let about = aggregate.and_then(|aggregate| about(&aggregate));
            headers.extend(about.map(|about| (header::LINK, about)));
        }
        None if executed.created => headers.extend(aggregate.map(|aggregate| (header::LOCATION, aggregate))),
        None => {}
    }
    Ok(response)
}

/// Returns the value of `Link` that names the subject of a reply (RFC 8288, RFC 6903).
fn about(uri: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("<{}>; rel=\"about\"", uri.to_str().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SagaRef;
    use crate::contract::fixtures::manifest;
    use crate::contract::{Action, Found, RouteTable};
    use crate::model::{Position, StreamId, Version};
    use crate::saga::SagaState;

    #[test]
    fn the_status_and_the_locations_say_what_happened() {
        let table = RouteTable::<()>::new([], [&manifest()]).unwrap();
        let Found::Endpoint(endpoint, _) = table.find(&axum::http::Method::POST, "/orders") else { panic!() };
        let Action::Command(route) = &endpoint.action else { panic!() };
        let executed = CommandResponse {
            stream: StreamId::new("order", "7").unwrap(),
            version: Version::new(1),
            position: Position::new(42),
            events: vec!["order-created".into()],
            view: None,
            saga: None,
            waited: true,
            created: false,
        };
        let table = [
            (None, true, 201, Some("/orders/7"), None),
            (None, false, 200, None, None),
            (Some(SagaState::Running), true, 202, Some("/sagas/s"), Some("</orders/7>; rel=\"about\"")),
            (Some(SagaState::Waiting), true, 202, Some("/sagas/s"), Some("</orders/7>; rel=\"about\"")),
            (Some(SagaState::Parked), false, 202, Some("/sagas/s"), Some("</orders/7>; rel=\"about\"")),
            (Some(SagaState::Completed), true, 201, Some("/orders/7"), None),
            (Some(SagaState::Compensated), false, 200, None, None),
            (Some(SagaState::Resolved), false, 200, None, None),
        ];
        for (state, created, status, location, link) in table {
            let saga = state.map(|state| SagaRef { id: "s".into(), state });
            let response = reply(route, &CommandResponse { saga, created, ..executed.clone() }).unwrap();
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(response.status().as_u16(), status, "{state:?}");
            assert_eq!(header("location"), location, "{state:?}");
            assert_eq!(header("link"), link, "{state:?}");
            assert_eq!((header("etag"), header("kontor-position")), (Some("\"1\""), Some("42")));
        }
    }
}
