//! `GET /events`: all events of the log, as a stream of server-sent events or as pages of JSON.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use futures::stream;
use mediatype::names::{APPLICATION, JSON, TEXT};
use mediatype::{MediaType, Name};
use tokio::sync::OwnedSemaphorePermit;

use super::header_docs::LAST_EVENT_ID;
use super::headers::{decimal, preferred};
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

const APPLICATION_JSON: MediaType<'_> = MediaType::new(APPLICATION, JSON);
/// The forms of the reply. A client that does not say which one gets the first.
const MEDIA_TYPES: &[MediaType<'_>] =
    &[MediaType::new(TEXT, Name::new_unchecked("event-stream")), APPLICATION_JSON];

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
    let Some(media_type) = preferred(request.headers(), MEDIA_TYPES) else {
        let detail = "Events come as text/event-stream or as application/json.";
        return Err(Problem::new(ProblemCode::NotAcceptable, detail));
    };
    let vary = (header::VARY, HeaderValue::from_static("accept"));
    if *media_type == APPLICATION_JSON {
        let limit = page_size(limit);
        let events = server.host.log.read_all(after.unwrap_or_default(), limit).await?;
        let events = events.iter().map(Event::from).collect();
        let page = Page::new(events, limit, |event: &Event| event.position);
        return json_reply(StatusCode::OK, &page).map(|reply| ([vary], reply).into_response());
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
    response.headers_mut().extend([vary]);
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
