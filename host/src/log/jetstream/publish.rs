//! Publishes appends, and confirms versions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::{Client, HeaderMap, Request as NatsRequest, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::outgoing::{Group, Kind, Outgoing, Request};
use super::pending_appends::{Outcomes, PendingAppends};
use super::wire::{self, PublishId};
use super::{Sequence, leader_probe};
use crate::clock::deadline_after;
use crate::log::embedded::LocalCopy;
use crate::log::{Append, AppendError, Appended, EventLog as _, Outcome};

/// The longest wait for the outcome of an append. An election of another leader (4.3 to 6.4 s) fits in. After
/// it the outcome counts as unknown.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The wait before the next attempt after a transient failure.
const PAUSE: Duration = Duration::from_millis(20);

/// A status as in HTTP: no leader, a full queue, and the like.
const UNAVAILABLE: u32 = 503;

/// Publishes the appends of this process.
pub(super) struct Publisher {
    pub(super) client: Client,
    /// The name of the stream.
    pub(super) name: String,
    pub(super) copy: Arc<LocalCopy>,
    pub(super) pending: Arc<PendingAppends>,
    /// True while the stream accepts messages.
    pub(super) available: watch::Receiver<bool>,
    pub(super) outgoing: Mutex<Outgoing>,
}

/// The server's answer to a publication.
#[derive(Deserialize)]
struct Reply {
    /// The error, in which case the other member is absent.
    error: Option<Refusal>,
    #[serde(default)]
    seq: Sequence,
}

/// An error in an answer of the server.
#[derive(Debug, Deserialize, thiserror::Error)]
#[error("{description} (error {err_code} of the NATS server)")]
struct Refusal {
    code: u32,
    err_code: u32,
    description: String,
}

/// The reasons why a message was not published.
#[derive(Debug, thiserror::Error)]
enum NatsError {
    #[error("a request to the NATS server failed")]
    Request(#[from] async_nats::RequestError),
    #[error("the NATS server refused the message")]
    Refused(#[from] Refusal),
    #[error("the answer of the NATS server cannot be parsed")]
    Protocol(#[from] serde_json::Error),
    #[error("the outcome is unknown after {} s", OUTCOME_TIMEOUT.as_secs())]
    Unknown,
}

impl From<NatsError> for AppendError {
    fn from(error: NatsError) -> Self {
        match error {
            NatsError::Request(request) if request.kind() == RequestErrorKind::MaxPayloadExceeded => {
                Self::TooLarge(Arc::new(request))
            }
            error => Self::Failed(Arc::new(error)),
        }
    }
}

impl Publisher {
    /// Queues a request, and starts to process the group that is ready.
    pub(super) fn enqueue(self: &Arc<Self>, request: Request) -> Result<(), AppendError> {
        let kind = request.kind();
        let ready = self.outgoing().push(request)?;
        if ready {
            self.start(kind);
        }
        Ok(())
    }

    /// Processes the group of a kind that is ready, in the background.
    fn start(self: &Arc<Self>, kind: Kind) {
        let group = self.outgoing().take(kind);
        if let Some(group) = group {
            tokio::spawn(self.clone().process(group));
        }
    }

    /// Processes a group, and replies to its callers.
    async fn process(self: Arc<Self>, group: Group) {
        let processed = match group.kind {
            Kind::Publish => self.publish(&group).await,
            Kind::Confirm => self.confirm(&group).await,
        };
        let outcomes = processed.unwrap_or_else(|error| vec![Err(error); group.requests.len()]);
        self.outgoing().done(&group, &outcomes);
        [Kind::Publish, Kind::Confirm].into_iter().for_each(|kind| self.start(kind));
        // Before the replies: a caller that gets one may drop the log, which must be closed then.
        drop(self);
        for (request, outcome) in group.requests.into_iter().zip(outcomes) {
            // Err: nobody waits any more.
            let _ = request.reply.send(outcome);
        }
    }

    /// Publishes a group in one message, and waits until the copy has found the outcomes.
    async fn publish(&self, group: &Group) -> Outcomes {
        let mut pending = self.pending.register();
        let payload = wire::encode(&group.requests).map_err(NatsError::from)?;
        let deadline = deadline_after(OUTCOME_TIMEOUT);
        let stored = async {
            loop {
                match self.attempt(payload.clone(), pending.id).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::select! {
            biased;
            Ok(outcomes) = &mut pending.outcomes => return outcomes,
            stored = timeout_at(deadline, stored) => stored.unwrap_or(Err(NatsError::Unknown))?,
        }
        match timeout_at(deadline, &mut pending.outcomes).await {
            Ok(Ok(outcomes)) => outcomes,
            _ => Err(NatsError::Unknown.into()),
        }
    }

    /// Publishes one message. If it is published again, because the answer got lost, it has no effect the
    /// second time: its appends do not fit any more.
    async fn attempt(&self, payload: Bytes, id: PublishId) -> Result<(), NatsError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, self.name.as_str());
        id.write(&mut headers);
        if let Some(mark) = self.copy.log().newest() {
            wire::write_mark(mark, &mut headers);
        }
        let request = NatsRequest::new().headers(headers).payload(payload).timeout(Some(REQUEST_TIMEOUT));
        let message = self.client.send_request(wire::subject(&self.name), request).await?;
        let reply: Reply = serde_json::from_slice(&message.payload)?;
        match reply.error {
            Some(refusal) => Err(refusal.into()),
            None => {
                self.pending.note_stored(reply.seq);
                Ok(())
            }
        }
    }

    /// Confirms the versions of a group that writes nothing: they are compared with a copy that has all
    /// messages of the stream.
    async fn confirm(&self, group: &Group) -> Outcomes {
        match timeout_at(deadline_after(OUTCOME_TIMEOUT), self.catch_up()).await {
            Ok(caught_up) => caught_up?,
            Err(_) => return Err(NatsError::Unknown.into()),
        }
        let mut outcomes = Vec::with_capacity(group.requests.len());
        for request in &group.requests {
            outcomes.push(self.compare(&request.batch).await);
        }
        Ok(outcomes)
    }

    /// Waits until the copy has all messages that a leader with its majority has.
    async fn catch_up(&self) -> Result<(), AppendError> {
        loop {
            if let Some(last) = leader_probe::request_last(&self.client, &self.name).await {
                self.pending.until_copied(last).await;
                return Ok(());
            }
            if !*self.available.borrow() {
                return Err(AppendError::Unavailable);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Fails if a stream has another version in the copy than an append expects.
    async fn compare(&self, batch: &[Append]) -> Outcome {
        for Append { stream, expected, .. } in batch {
            let actual = self.copy.version(stream).await.map_err(|error| AppendError::Failed(error.0))?;
            if actual != *expected {
                return Err(AppendError::Conflict { stream: stream.clone(), expected: *expected, actual });
            }
        }
        Ok(Appended { position: *self.copy.log().head().borrow() })
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NatsError {
    /// Returns whether a retry may help.
    fn is_transient(&self) -> bool {
        match self {
            Self::Request(error) => error.kind() != RequestErrorKind::MaxPayloadExceeded,
            Self::Refused(refusal) => refusal.code == UNAVAILABLE,
            Self::Protocol(_) | Self::Unknown => false,
        }
    }
}
