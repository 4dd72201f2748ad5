//! What an operator sees of the read models, and does to them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::tables::{self, Beginning};
use super::{Database, Projection, Projections};
use crate::aggregate::CallError;
use crate::clock::Time;
use crate::log::{EventLog, ReadError};
use crate::model::{Position, Rejection, ServiceName, StreamId};

/// Requests that wait for one read model: persons make them, one at a time.
pub(super) const MAX_REQUESTS: usize = 16;

/// How a read model stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    pub service: ServiceName,
    /// The read model's version.
    pub version: u32,
    /// Only events recorded then or later are in it; none if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Everything in the log up to here is dealt with.
    pub position: Position,
    /// Events behind that.
    pub lag_events: u64,
    /// How long ago the first of them was recorded; 0 if there is none.
    pub lag_ms: u64,
    /// How many streams are parked.
    pub parked: u64,
    /// The database that is being built beside it to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<Build>,
}

/// How far a database is that is being built. It is done when it is as far as the live one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Build {
    pub version: u32,
    pub position: Position,
    /// Since it was begun, or gone on with after a restart; those included that are of no interest to it.
    pub events_per_second: u64,
}

/// A database that is being built, as the one who fills it shows it.
pub(super) struct Building {
    pub(super) database: Arc<Database>,
    /// Where it began or went on, and when.
    pub(super) from: Position,
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

/// A stream that a read model could not go on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParkedStream {
    /// Its name: `order/0199…`.
    pub stream: String,
    /// The position of the event that could not be applied.
    pub position: Position,
    /// Why.
    pub error: String,
    /// Events of the stream that came after it and were passed over.
    pub skipped: u64,
}

/// What came of a redrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Redrive {
    /// Streams that are parked no more.
    pub streams: u64,
    /// Events that were applied.
    pub events: u64,
    /// Streams that failed again and stay parked.
    pub parked: u64,
}

/// What is asked of the one who fills a read model.
pub(super) enum Request {
    /// To look at what is deployed.
    Follow,
    Redrive {
        stream: Option<StreamId>,
        answer: oneshot::Sender<Result<Redrive, Rejection>>,
    },
    /// The answer is whether it has begun; if not, another one is under way.
    Replay {
        beginning: Beginning,
        answer: oneshot::Sender<bool>,
    },
}

impl Projections {
    /// All read models, by service.
    pub async fn overviews(&self) -> Result<Vec<Overview>, CallError> {
        let mut overviews = Vec::new();
        for service in self.current.load().keys() {
            overviews.push(self.overview(service.as_str()).await?);
        }
        Ok(overviews)
    }

    /// One read model. Rejected with `not-found` if the service has none.
    pub async fn overview(&self, service: &str) -> Result<Overview, CallError> {
        let projection = self.find(service)?;
        let database = projection.live.load().database.clone();
        let position = database.position();
        let next = self.log.read_all(position, 1).await?;
        let lag_ms = next.first().map_or(0, |event| self.clock.now_ms().saturating_sub(event.meta.time_ms));
        let lag_events = self.log.head().borrow().distance_from(position);
        Ok(Overview {
            service: projection.service.clone(),
            version: database.version(),
            from: database.from(),
            position,
            lag_events,
            lag_ms,
            parked: database.parked(),
            building: projection.building.load().as_ref().map(|build| build.progress(self.clock.now_ms())),
        })
    }

    /// Up to `limit` parked streams of a read model behind a position, in the order in which they were parked. Rejected with
    /// `not-found`.
    pub async fn parked(
        &self,
        service: &str,
        after: Position,
        limit: usize,
    ) -> Result<Vec<ParkedStream>, CallError> {
        let projection = self.find(service)?;
        let database = projection.live.load().database.clone();
        let unusable = |reason| CallError::ReadModel { service: projection.service.clone(), reason };
        let look_up = move || database.look_up(|connection| tables::parked_since(connection, after, limit));
        let found = spawn_blocking(look_up).await.map_err(|error| unusable(error.to_string()))?;
        found.map_err(|error| unusable(error.to_string()))
    }

    /// Applies the events of a parked stream, or of all parked streams, again from the one that failed, with the component
    /// that is deployed now. Goes on when the caller stops waiting. Rejected with `not-found` or `stream-not-parked`.
    pub async fn redrive(&self, service: &str, stream: Option<StreamId>) -> Result<Redrive, CallError> {
        Ok(request(&*self.find(service)?, |answer| Request::Redrive { stream, answer }).await??)
    }

    /// Begins to build a read model anew, beside the live database, which goes on and is asked until the new one is as far:
    /// from the first event on, or with those alone that were recorded at a time or later. Goes on after a restart. Rejected
    /// with `not-found`, `time-not-come` or `replay-under-way`.
    pub async fn replay(&self, service: &str, from: Option<Time>) -> Result<Overview, CallError> {
        let projection = self.find(service)?;
        let after = match from {
            Some(Time(from_ms)) if from_ms > self.clock.now_ms() => {
                let message = "A replay begins at a time that has come.";
                return Err(Rejection::new("time-not-come", message).into());
            }
            Some(from) => before(&*self.log, from).await?,
            None => Position::START,
        };
        let beginning = Beginning { after, from };
        if !request(&projection, |answer| Request::Replay { beginning, answer }).await? {
            let message = format!("The read model of {service} is being built anew already.");
            return Err(Rejection::new("replay-under-way", message).into());
        }
        self.overview(service).await
    }

    fn find(&self, service: &str) -> Result<Arc<Projection>, CallError> {
        let message = || format!("There is no service {service} with a read model.");
        Ok(self.projection(service).ok_or_else(|| Rejection::new("not-found", message()))?)
    }
}

/// The position of the last event before a time, by halving the log. Where the clocks of several hosts have differed, what is
/// around that time may be on either side.
async fn before(log: &dyn EventLog, Time(time_ms): Time) -> Result<Position, ReadError> {
    let (mut before, mut end) = (Position::START, *log.head().borrow());
    while before < end {
        let middle = before.after(end.distance_from(before) as usize / 2);
        match log.read_all(middle, 1).await?.first() {
            Some(event) if event.meta.time_ms < time_ms => before = event.position,
            _ => end = middle,
        }
    }
    Ok(before)
}

/// Has the one who fills a read model do something.
async fn request<T>(
    projection: &Projection,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, CallError> {
    let (answer, answered) = oneshot::channel();
    let full = |_| CallError::Busy { queue: "the queue of a read model's operators" };
    projection.requests.try_send(request(answer)).map_err(full)?;
    answered.await.map_err(|_| CallError::ReadModel {
        service: projection.service.clone(),
        reason: "it was interrupted; what it has done stands, and the rest can be asked for again".to_owned(),
    })
}
