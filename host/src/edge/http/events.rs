//! `GET /events`: all events of the log, as a stream of server-sent events or as pages of JSON.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::header_docs::LAST_EVENT_ID;
use super::headers::{accepts_json_only, decimal};
use super::json_reply;
use super::route::{HostRoute, Request};
use crate::api::{Event, EventsQuery, Page, page_size};
use crate::contract::{Problem, ProblemCode};
use crate::error::Chain;
use crate::log::{ReadError, Subscription};
use crate::model::{AUDITOR, Position, Recorded};

/// The interval between signs of life on a stream without events: shorter than the common minute after which
/// proxies close it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/events", "events.list", list)
            .roles(&[AUDITOR])
            .summary("Streams all events as server-sent events, or returns a page of them as JSON.")
            .headers(&[LAST_EVENT_ID])
            .for_operators()
            .media("text/event-stream")
            .json::<Page<Event, Position>>(),
    ]
}

/// Starts after `Last-Event-ID`, else after `?after=POSITION`, else at the beginning of the log.
async fn list(request: Request<EventsQuery>) -> Result<Response, Problem> {
    let server = request.server();
    let EventsQuery { after, limit } = request.query;
    if accepts_json_only(request.headers()) {
        let limit = page_size(limit);
        let events = server.host.log.read_all(after.unwrap_or_default(), limit).await?;
        let events = events.iter().map(Event::from).collect();
        return json_reply(StatusCode::OK, &Page::new(events, limit, |event: &Event| event.position));
    }
    if limit.is_some() {
        return Err(Problem::invalid_parameter("A stream of events has no limit, only a page of JSON has."));
    }
    let after = last_event_id(request.headers())?.or(after).unwrap_or_default();
    let Ok(permit) = server.event_streams.clone().try_acquire_owned() else {
        let detail = "The host serves as many streams of events as it accepts.";
        return Err(Problem::new(ProblemCode::Busy, detail));
    };
    let events = Reader {
        subscription: Subscription::new(server.host.log.clone(), after),
        pending: VecDeque::new(),
        _permit: permit,
    };
    let events = stream::try_unfold(events, Reader::step).take_until(server.stopped());
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies that gather a reply before they pass it on would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID.name) else {
        return Ok(None);
    };
    let position = value.to_str().ok().and_then(decimal);
    let refused = || Problem::invalid_header("Last-Event-ID must be a position of the log.");
    position.ok_or_else(refused).map(Some)
}

/// The progress of one client in the log. It reads the next page when the client has taken the last event of
/// the one before, so a slow client costs one page of memory.
struct Reader {
    subscription: Subscription,
    pending: VecDeque<Recorded>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// Returns the next event, or none when the log is closed. A failed read ends the stream; the client
    /// connects again.
    async fn step(mut self) -> Result<Option<(sse::Event, Self)>, StreamError> {
        while self.pending.is_empty() {
            match self.subscription.next().await? {
                None => return Ok(None),
                Some(page) => self.pending = page.into(),
            }
        }
        let Some(event) = self.pending.pop_front() else {
            return Ok(None);
        };
        let data =
            serde_json::to_string(&Event::from(&event)).map_err(|error| StreamError(Arc::new(error)))?;
        let shown = sse::Event::default().id(event.position.to_string()).data(data);
        Ok(Some((shown, self)))
    }
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
