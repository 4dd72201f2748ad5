//! The operators' view of the read models, and their requests: redrive and replay.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::tables::{self, Beginning};
use super::{Database, OperateError, Projection, Projections, ReadModelError, Unusable};
use crate::clock::Time;
use crate::log::{EventLog, ReadError};
use crate::model::{LogMark, Position, Rejection, ServiceName, StreamId};

/// Requests that wait for one read model: operators make them, one at a time.
pub(super) const MAX_REQUESTS: usize = 16;

/// The status of a read model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "ProjectionOverview")]
pub struct Overview {
    /// The service that it belongs to.
    pub service: ServiceName,
    /// The read model's version.
    pub version: u32,
    /// The time from which on recorded events are in it, or `None` if all events are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// The position in the log up to which all events are applied, skipped or parked.
    pub position: Position,
    /// The number of events after that position.
    pub lag_events: u64,
    /// The age of the first of these events in milliseconds; 0 if there is none.
    pub lag_ms: u64,
    /// The number of parked streams.
    pub parked: u64,
    /// The database that is being built beside it and will replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<Build>,
}

/// The progress of a database that is being built. It is complete when it is as far as the live one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "ProjectionBuild")]
pub struct Build {
    /// The read model's version.
    pub version: u32,
    /// The position in the log that it has reached.
    pub position: Position,
    /// The speed since it was begun, or resumed after a restart, counting events that it does not subscribe
    /// to.
    pub events_per_second: u64,
}

/// A database that is being built, as its runner shows it.
pub(super) struct Building {
    pub(super) database: Arc<Database>,
    /// The position where it was begun or resumed.
    pub(super) from: Position,
    /// The time when it was begun or resumed.
    pub(super) since_ms: u64,
}

impl Building {
    fn progress(&self, now_ms: u64) -> Build {
        let position = self.database.position();
        let elapsed_ms = now_ms.saturating_sub(self.since_ms).max(1);
        let events_per_second = position.distance_from(self.from) * 1_000 / elapsed_ms;
        Build { version: self.database.version(), position, events_per_second }
    }
}

/// A stream with an event that a read model could not apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ParkedStream {
    /// Its name: `order/0199…`.
    pub stream: String,
    /// The position of the event that could not be applied.
    pub position: Position,
    /// The reason.
    pub error: String,
    /// The number of later events of the stream, which were skipped.
    pub skipped: u64,
}

/// The result of a redrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "ProjectionRedrive")]
pub struct Redrive {
    /// Streams that are not parked any more.
    pub streams: u64,
    /// Events that were applied.
    pub events: u64,
    /// Streams that failed again and stay parked.
    pub parked: u64,
}

/// A request to the runner of a read model.
pub(super) enum Request {
    /// Look for a newly deployed component.
    Follow,
    Redrive {
        /// `None`: all parked streams.
        stream: Option<StreamId>,
        answer: oneshot::Sender<Result<Redrive, Rejection>>,
    },
    Replay {
        beginning: Beginning,
        /// True if the replay has begun; false if a database is being built already.
        answer: oneshot::Sender<bool>,
    },
}

impl Projections {
    /// Returns the status of all read models, by service.
    pub async fn overviews(&self) -> Result<Vec<Overview>, OperateError> {
        let mut overviews = Vec::new();
        for service in self.current.load().keys() {
            overviews.push(self.overview(service.as_str()).await?);
        }
        Ok(overviews)
    }

    /// Returns the status of one read model. Rejected with `not-found` if the service has none.
    pub async fn overview(&self, service: &str) -> Result<Overview, OperateError> {
        let projection = self.find(service)?;
        let database = projection.live.load().database.clone();
        let position = database.position();
        let next = self.deps.log.read_all(position, 1).await?;
        let now_ms = self.deps.clock.now_ms();
        let lag_ms = next.first().map_or(0, |event| now_ms.saturating_sub(event.meta.time_ms));
        let lag_events = self.deps.log.head().borrow().distance_from(position);
        Ok(Overview {
            service: projection.service.clone(),
            version: database.version(),
            from: database.from(),
            position,
            lag_events,
            lag_ms,
            parked: database.parked(),
            building: projection.building.load().as_ref().map(|build| build.progress(now_ms)),
        })
    }

    /// Returns up to `limit` streams that were parked after a position, in the order in which they were
    /// parked. Rejected with `not-found` if the service has no read model.
    pub async fn parked(
        &self,
        service: &str,
        after: Position,
        limit: usize,
    ) -> Result<Vec<ParkedStream>, OperateError> {
        let projection = self.find(service)?;
        let database = projection.live.load().database.clone();
        let look_up = move || database.look_up(|connection| tables::parked_since(connection, after, limit));
        let found = spawn_blocking(look_up).await;
        let found = found.map_err(|error| projection.unusable(Unusable::BrokenOff(error)))?;
        found.map_err(|error| projection.unusable(error.into()))
    }

    /// Applies the events of a parked stream, or of all parked streams, from the one that failed on, with the
    /// component that is deployed now. Continues when the caller stops waiting. Rejected with `not-found` or
    /// `stream-not-parked`.
    pub async fn redrive(&self, service: &str, stream: Option<StreamId>) -> Result<Redrive, OperateError> {
        Ok(request(&*self.find(service)?, |answer| Request::Redrive { stream, answer }).await??)
    }

    /// Begins to rebuild a read model beside the live database, which stays live until the new one is as far:
    /// from the first event on, or only with the events that were recorded at a time or later. Continues
    /// after a restart. Rejected with `not-found`, `time-not-come` or `replay-under-way`.
    pub async fn replay(&self, service: &str, from: Option<Time>) -> Result<Overview, OperateError> {
        let projection = self.find(service)?;
        let after = match from {
            Some(Time(from_ms)) if from_ms > self.deps.clock.now_ms() => {
                let message = "A replay begins at a time that has come.";
                return Err(Rejection::new("time-not-come", message).into());
            }
            Some(from) => before(&*self.deps.log, from).await?,
            None => LogMark::START,
        };
        let beginning = Beginning { after, from, complete_at: *self.deps.log.head().borrow() };
        if !request(&projection, |answer| Request::Replay { beginning, answer }).await? {
            let message = format!("The read model of {service} is being built anew already.");
            return Err(Rejection::new("replay-under-way", message).into());
        }
        self.overview(service).await
    }

    fn find(&self, service: &str) -> Result<Arc<Projection>, Rejection> {
        let message = || format!("There is no service {service} with a read model.");
        self.projection(service).ok_or_else(|| Rejection::new("not-found", message()))
    }
}

impl Projection {
    fn unusable(&self, reason: Unusable) -> OperateError {
        ReadModelError { service: self.service.clone(), reason }.into()
    }
}

/// Returns the mark of the last event before a time, by binary search. Where the clocks of several hosts
/// differ, events around that time may be on either side.
async fn before(log: &dyn EventLog, Time(time_ms): Time) -> Result<LogMark, ReadError> {
    let (mut before, mut end) = (LogMark::START, *log.head().borrow());
    while before.position < end {
        let middle = before.position.after(end.distance_from(before.position) as usize / 2);
        match log.read_all(middle, 1).await?.first() {
            Some(event) if event.meta.time_ms < time_ms => before = event.mark(),
            _ => end = middle,
        }
    }
    Ok(before)
}

/// Sends a request to the runner of a read model and waits for the answer.
async fn request<T>(
    projection: &Projection,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, OperateError> {
    let (answer, answered) = oneshot::channel();
    projection.requests.try_send(request(answer)).map_err(|_| OperateError::Busy)?;
    answered.await.map_err(|_| projection.unusable(Unusable::Interrupted))
}
