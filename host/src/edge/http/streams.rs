//! The history of one aggregate, and its state at an earlier version.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::route::{HostRoute, Json, Request};
use crate::api::{AggregateState, Event, Page, StreamQuery, page_size};
use crate::contract::Problem;
use crate::log::more_may_follow;
use crate::model::{AUDITOR, StreamId, Version};

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/streams/{aggregate}/{id}", "streams.show", show)
            .roles(&[AUDITOR])
            .summary("Returns the history of an aggregate, or its state at a version.")
            .ids()
            .problems(&[StatusCode::BAD_GATEWAY])
            .for_operators(),
    ]
}

/// The two forms of the reply.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum PageOrState {
    Page(Page<Event, Version>),
    State(AggregateState),
}

/// Returns the events, oldest first; with `?at=VERSION` the state at that version.
async fn show(request: Request<StreamQuery>) -> Result<Json<PageOrState>, Problem> {
    let stream = StreamId::new(&request.path("aggregate")?, &request.path("id")?)?;
    let host = &request.server().host;
    let (aggregate, id) = (stream.aggregate(), stream.id());
    if let Some(at) = request.query.at {
        let Some(viewed) = host.dispatch.view(&stream, Some(at)).await? else {
            let detail = format!("At version {at} there is no {aggregate} with the id {id}.");
            return Err(Problem::not_found(detail));
        };
        let state = AggregateState { id: id.to_owned(), version: viewed.version, state: viewed.view };
        return Ok(Json(PageOrState::State(state)));
    }
    let (after, limit) = (request.query.after.unwrap_or_default(), page_size(request.query.limit));
    let events = host.log.read(&stream, after, limit).await?;
    if events.is_empty() && after == Version::START {
        return Err(Problem::not_found(format!("There is no {aggregate} with the id {id}.")));
    }
    // A page may end early, at a number of bytes.
    let next = events.last().filter(|_| more_may_follow(&events, limit)).map(|event| event.version);
    Ok(Json(PageOrState::Page(Page { items: events.iter().map(Event::from).collect(), next })))
}
