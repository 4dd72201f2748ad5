//! `GET /events`: the events of the log that a caller may see and asks for, as a stream of server-sent events
//! or as pages of JSON.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use mediatype::names::{APPLICATION, JSON, TEXT};
use mediatype::{MediaType, Name};
use tokio::sync::OwnedSemaphorePermit;

use super::event_pages::{Past, Selected};
use super::header_docs::LAST_EVENT_ID;
use super::headers::{position, preferred};
use super::json_reply;
use super::route::{HostRoute, Request};
use crate::api::{Event, EventsQuery, Page, page_size};
use crate::contract::{Problem, ProblemCode};
use crate::deployed::Deployed;
use crate::error::Chain;
use crate::log::{ReadError, Subscription};
use crate::model::{AUDITOR, AggregateName, Caller, Position, Recorded};
use crate::query::AtLeast;

/// The interval between signs of life on a stream without events: shorter than the common minute after which
/// proxies close it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The time after which a client connects again when a stream has ended.
const RETRY: Duration = Duration::from_secs(2);
/// The longest wait for the position that a client continues after: it may come from another host, whose copy
/// of the log is further on.
const CATCH_UP: Duration = Duration::from_secs(5);

const APPLICATION_JSON: MediaType<'_> = MediaType::new(APPLICATION, JSON);
/// The forms of the reply. A client that does not say which one gets the first.
const MEDIA_TYPES: &[MediaType<'_>] =
    &[MediaType::new(TEXT, Name::new_unchecked("event-stream")), APPLICATION_JSON];

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/events", "events.list", list)
            .signed_in()
            .summary(
                "Streams events as server-sent events, or returns a page of them as JSON: all for auditors, \
                 else those of the aggregates that the caller's roles may read.",
            )
            .headers(&[LAST_EVENT_ID])
            .problems(&[StatusCode::NOT_FOUND, StatusCode::NOT_ACCEPTABLE])
            .for_operators()
            .media("text/event-stream")
            .json::<Page<Event, Position>>(),
    ]
}

/// Starts after `Last-Event-ID`, else after `?after=POSITION`, else at the beginning of the log.
async fn list(request: Request<EventsQuery>) -> Result<Response, Problem> {
    let server = request.server();
    let EventsQuery { after, limit, .. } = request.query;
    let Some(media_type) = preferred(request.headers(), MEDIA_TYPES) else {
        let detail = "Events come as text/event-stream or as application/json.";
        return Err(Problem::new(ProblemCode::NotAcceptable, detail));
    };
    let selected = Selected {
        aggregates: aggregates(&request.query, request.caller(), &server.host.registry.current())?,
        query: request.query.clone(),
    };
    let as_pages = *media_type == APPLICATION_JSON;
    if limit.is_some() && !as_pages {
        return Err(Problem::invalid_parameter("A stream of events has no limit, only a page of JSON has."));
    }
    let resumed = last_event_id(request.headers())?.filter(|_| !as_pages);
    let after = resumed.or(after).unwrap_or_default();
    await_position(&request, after).await?;
    let log = &server.host.log;
    let vary = (header::VARY, HeaderValue::from_static("accept"));
    if as_pages {
        let page = selected.page(log, after, page_size(limit)).await?;
        return json_reply(StatusCode::OK, &page).map(|reply| ([vary], reply).into_response());
    }
    let Ok(permit) = server.event_streams.clone().try_acquire_owned() else {
        let detail = "The host serves as many streams of events as it accepts.";
        return Err(Problem::new(ProblemCode::Busy, detail));
    };
    let past = selected.past(log, after).await?;
    let events = Reader {
        subscription: Subscription::new(log.clone(), past.end.max(after)),
        selected,
        past,
        pending: VecDeque::new(),
        _permit: permit,
    };
    let first = stream::once(async { Ok(sse::Event::default().retry(RETRY)) });
    let events = first.chain(stream::try_unfold(events, Reader::step)).take_until(server.stopped());
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies that gather a reply before they pass it on would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().extend([vary]);
    Ok(response)
}

/// Fails if the log does not get to a position: it is that of another log, or of one that was put back since.
async fn await_position(request: &Request<EventsQuery>, position: Position) -> Result<(), Problem> {
    let server = request.server();
    let at_least = server.at_least(request.headers())?;
    let wait = at_least.wait.unwrap_or(CATCH_UP).min(CATCH_UP);
    let at_least = AtLeast { position: Some(position), wait: Some(wait), ..at_least };
    Ok(server.host.queries.inquiry(request.caller().clone(), at_least).await_log().await?)
}

/// Returns the aggregates whose events a caller may see and asks for. `None`: all.
fn aggregates(
    query: &EventsQuery,
    caller: &Caller,
    deployed: &Deployed,
) -> Result<Option<HashSet<AggregateName>>, Problem> {
    let sees_all = caller.has(AUDITOR);
    let services: Vec<_> = match &query.service {
        None if sees_all => return Ok(None),
        None => deployed.services().collect(),
        Some(service) => vec![deployed.service(service.as_str()).ok_or_else(|| {
            Problem::new(ProblemCode::NotDeployed, format!("There is no service {service}."))
        })?],
    };
    let mut aggregates = HashSet::new();
    for manifest in services.iter().map(|component| component.manifest()) {
        let seen = manifest.aggregates.iter();
        let seen = seen.filter(|aggregate| sees_all || manifest.may_read(aggregate, &caller.roles));
        aggregates.extend(seen.map(|aggregate| aggregate.name.clone()));
    }
    match aggregates.is_empty() && !sees_all {
        true => {
            Err(Problem::new(ProblemCode::Forbidden, "None of the caller's roles may read these events."))
        }
        false => Ok(Some(aggregates)),
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID.name) else {
        return Ok(None);
    };
    let position = position(value);
    let refused = || Problem::invalid_header("Last-Event-ID must be a position of the log.");
    position.ok_or_else(refused).map(Some)
}

/// The progress of one client in the log. It reads the next page when the client has taken the last event of
/// the one before, so a slow client costs one page of memory.
struct Reader {
    selected: Selected,
    /// The events before those of the subscription.
    past: Past,
    subscription: Subscription,
    pending: VecDeque<Recorded>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// Returns the next event, or none when the log is closed. A failed read ends the stream; the client
    /// connects again. After a page without a selected event, it is an id alone, after which the client
    /// continues then.
    async fn step(mut self) -> Result<Option<(sse::Event, Self)>, StreamError> {
        if let Some(event) = self.pending.pop_front() {
            return Ok(Some((shown(&event)?, self)));
        }
        let Some(page) = self.page().await? else { return Ok(None) };
        let last = page.last().map(|event| event.position).unwrap_or_default();
        self.pending = page.into_iter().filter(|event| self.selected.admits(event)).collect();
        let next = match self.pending.pop_front() {
            Some(event) => shown(&event)?,
            None => sse::Event::default().id(last.to_string()),
        };
        Ok(Some((next, self)))
    }

    async fn page(&mut self) -> Result<Option<Vec<Recorded>>, ReadError> {
        if self.past.has_more {
            let page = self.past.next().await?;
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        self.subscription.next().await
    }
}

fn shown(event: &Recorded) -> Result<sse::Event, StreamError> {
    let data = serde_json::to_string(&Event::from(event)).map_err(|error| StreamError(Arc::new(error)))?;
    Ok(sse::Event::default().id(event.position.to_string()).data(data))
}

/// The reason why a stream of events ended early.
#[derive(Debug, thiserror::Error)]
#[error("the stream of events has ended early")]
struct StreamError(#[source] Arc<dyn std::error::Error + Send + Sync>);

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        tracing::error!(error = %Chain(&error), "failed to read events for a stream; it is closed");
        Self(error.0)
    }
}
