//! `GET /events`: all events of the log, as they come (server-sent events) or a page of them (JSON).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::headers::{accepts_json_only, decimal};
use super::page::{Page, after_and_limit};
use super::parameters::Parameters;
use super::streams::EventBody;
use super::{Call, Site, json};
use crate::contract::Problem;
use crate::log::{ReadError, Subscription};
use crate::model::{Position, Recorded};

const LAST_EVENT_ID: &str = "last-event-id";
/// How often a silent stream shows that it is alive: more often than the common minute after which proxies give up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Starts after `Last-Event-ID`, else after `?after=POSITION`, else at the beginning of the log.
pub(super) async fn answer(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    let parameters = Parameters::parse(call.query)?;
    if accepts_json_only(call.headers) {
        let parameters = parameters.only(&["after", "limit"])?;
        let (after, limit) = after_and_limit(&parameters)?;
        let events = site.edge.log.read_all(after, limit).await?;
        let events = events.iter().map(EventBody::from).collect();
        return json(StatusCode::OK, &Page::new(events, limit, |event: &EventBody<'_>| event.position));
    }
    let after = start(call, &parameters.only(&["after"])?)?;
    let Ok(permit) = site.event_streams.clone().try_acquire_owned() else {
        return Err(Problem::unavailable("busy", "As many clients read events as the host serves at once."));
    };
    let events = Reader {
        subscription: Subscription::new(site.edge.log.clone(), after),
        pending: VecDeque::new(),
        _permit: permit,
    };
    let events = stream::try_unfold(events, Reader::step).take_until(site.stopped());
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies that gather a reply before they pass it on would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn start(call: &Call<'_>, parameters: &Parameters<'_>) -> Result<Position, Problem> {
    let Some(value) = call.headers.get(LAST_EVENT_ID) else {
        return Ok(parameters.number("after")?.unwrap_or_default());
    };
    let position = value.to_str().ok().and_then(decimal);
    position.ok_or_else(|| Problem::invalid_header("Last-Event-ID must be a position of the log."))
}

/// One client's way through the log. It reads a page when the client has taken the last, so a slow client costs a page
/// of memory and no more.
struct Reader {
    subscription: Subscription,
    pending: VecDeque<Recorded>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// The next event; none when the log is closed. A log that cannot be read ends the stream: the client comes back.
    async fn step(mut self) -> Result<Option<(Event, Self)>, StreamError> {
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
            serde_json::to_string(&EventBody::from(&event)).map_err(|error| StreamError(Arc::new(error)))?;
        let shown = Event::default().id(event.position.to_string()).data(data);
        Ok(Some((shown, self)))
    }
}

/// Why a stream of events broke off.
#[derive(Debug, thiserror::Error)]
#[error("the stream of events broke off")]
struct StreamError(#[source] Arc<dyn std::error::Error + Send + Sync>);

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        tracing::error!(error = %error.0, "a stream of events cannot be read");
        Self(error.0)
    }
}
