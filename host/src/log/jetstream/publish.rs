//! Publishes appends, each message on the condition that its event stream still has the expected end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::{Client, HeaderMap, Request as NatsRequest, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::Sequence;
use super::fences::Fences;
use super::pending_appends::{Outcome, PendingAppend, PendingAppends};
use super::stream_queues::{Group, Head, Request, StreamQueues};
use super::wire::{self, PublishId};
use crate::log::embedded::LocalCopy;
use crate::log::{AppendError, Appended, EventLog as _};
use crate::model::{StreamId, Version};

/// The longest wait for the outcome of an append. An election of another leader (4.3 to 6.4 s) fits in. After
/// it the outcome counts as unknown.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The wait before the next attempt after a transient failure.
const PAUSE: Duration = Duration::from_millis(20);

/// The headers of atomic batches, from ADR-50 of the NATS server. The last message of a batch commits it.
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// Error codes of the NATS server.
const WRONG_LAST_SEQUENCE: u32 = 10_071;
const NO_MESSAGE_FOUND: u32 = 10_037;
/// A status as in HTTP: no leader, a full queue, and the like.
const UNAVAILABLE: u32 = 503;
/// Too many batches at once. Now and then the server answers so without that reason.
const BATCHES_BUSY: u32 = 10_164;

/// Publishes the appends of this process.
pub(super) struct Publisher {
    pub(super) client: Client,
    /// The name of the stream.
    pub(super) name: String,
    pub(super) copy: Arc<LocalCopy>,
    pub(super) pending: Arc<PendingAppends>,
    pub(super) fences: Arc<Fences>,
    /// True while the stream accepts messages.
    pub(super) available: watch::Receiver<bool>,
    pub(super) queues: Mutex<StreamQueues>,
}

/// The server's answer to a publication, or to a request for a message.
#[derive(Deserialize)]
struct Reply {
    /// The error, in which case the other members are absent.
    error: Option<Refusal>,
    #[serde(default)]
    seq: Sequence,
    message: Option<StoredMessage>,
}

/// An error in an answer of the server.
#[derive(Debug, Deserialize, thiserror::Error)]
#[error("{description} (error {err_code} of the NATS server)")]
struct Refusal {
    code: u32,
    err_code: u32,
    description: String,
}

#[derive(Deserialize)]
struct StoredMessage {
    seq: Sequence,
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
    #[error("a message cannot be sent to the NATS server")]
    Publish(#[from] async_nats::PublishError),
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

/// One event stream's share of a group.
struct Part<'a> {
    stream: &'a StreamId,
    /// The version of the stream before.
    expected: Version,
    /// The version of the stream after.
    leaves: Version,
    subject: String,
    payload: Bytes,
}

impl Part<'_> {
    fn has_events(&self) -> bool {
        self.leaves > self.expected
    }
}

/// The state of a group after an attempt to publish it.
enum Sent {
    /// It is in the stream, and the copy will receive it.
    Stored,
    /// The copy has received it, or nothing had to be written.
    Complete(Outcome),
    /// Another append to one of the event streams came first.
    Overtaken,
}

impl Publisher {
    /// Queues a request, and starts to publish the group that is ready.
    pub(super) fn enqueue(self: &Arc<Self>, request: Request) -> Result<(), AppendError> {
        let ready = self.queues().push(request)?;
        self.start(ready);
        Ok(())
    }

    /// Publishes groups in the background.
    fn start(self: &Arc<Self>, groups: impl IntoIterator<Item = Group>) {
        for group in groups {
            tokio::spawn(self.clone().process(group));
        }
    }

    /// Publishes a group, and replies to its callers.
    async fn process(self: Arc<Self>, group: Group) {
        let outcome = self.outcome(&group).await;
        // Before the replies: a caller that gets one may drop the log, which must be closed then.
        drop(self);
        let mut behind = group.requests.iter().map(Request::events).sum::<usize>();
        for request in group.requests {
            behind -= request.events();
            let outcome =
                outcome.clone().map(|Appended { position }| Appended { position: position.before(behind) });
            // Err: nobody waits any more.
            let _ = request.reply.send(outcome);
        }
    }

    /// Publishes a group and waits for its outcome. Starts the next groups as soon as the ends of its streams
    /// are known, which they expect.
    async fn outcome(self: &Arc<Self>, group: &Group) -> Outcome {
        let mut pending = self.pending.register();
        let checked = self.queues().check(group);
        let sent = match checked {
            Err(error) => Err(error),
            Ok(()) => match timeout(OUTCOME_TIMEOUT, self.publish(group, &mut pending)).await {
                Ok(sent) => sent,
                Err(_) => Err(NatsError::Unknown.into()),
            },
        };
        let ready = {
            let mut queues = self.queues();
            if let Err(_) | Ok(Sent::Complete(Err(_))) = &sent {
                queues.fail(group);
            }
            queues.done(&group.streams)
        };
        self.start(ready);
        let outcome = match sent? {
            Sent::Complete(outcome) => outcome,
            _ => match timeout(OUTCOME_TIMEOUT, &mut pending.outcome).await {
                Ok(Ok(outcome)) => outcome,
                _ => Err(NatsError::Unknown.into()),
            },
        };
        outcome.inspect_err(|_| self.queues().fail(group))
    }

    /// Publishes a group on top of its streams. Retries when other messages came first and left the versions
    /// as they are.
    async fn publish(&self, group: &Group, pending: &mut PendingAppend<'_>) -> Result<Sent, AppendError> {
        let parts = self.parts(group)?;
        let mut heads = Vec::with_capacity(parts.len());
        for part in &parts {
            heads.push(self.head(part).await?);
        }
        loop {
            if let Ok(outcome) = pending.outcome.try_recv() {
                return Ok(Sent::Complete(outcome));
            }
            for (part, head) in parts.iter().zip(&heads) {
                self.check(part, *head).await?;
                self.check_fence(part, group)?;
            }
            let sent = match group.requests.iter().any(Request::writes) {
                true => self.send(&parts, &heads, pending).await?,
                false => self.confirm(&parts, &heads).await?,
            };
            let Sent::Overtaken = sent else { return Ok(sent) };
            for (part, head) in parts.iter().zip(&mut heads) {
                *head = self.ask_head(part.stream).await?;
            }
        }
    }

    /// Splits a group into one message for each event stream.
    fn parts<'a>(&self, group: &'a Group) -> Result<Vec<Part<'a>>, AppendError> {
        let count = group.streams.len() as u32;
        let part = |(stream, number): (&'a StreamId, u32)| {
            let appends = || {
                let batches = group.requests.iter().flat_map(|request| &request.batch);
                batches.filter(|append| append.stream == *stream)
            };
            let expected = appends().next().map_or(Version::START, |first| first.expected);
            let written = appends().map(|append| append.events.len()).sum();
            let leaves = expected.after(written);
            let commits = appends().filter(|append| append.writes());
            let payload = wire::encode(stream, (number, count), commits).map_err(NatsError::from)?;
            let subject = wire::subject(&self.name, stream);
            Ok(Part { stream, expected, leaves, subject, payload })
        };
        group.streams.iter().zip(1..).map(part).collect()
    }

    /// Returns the end of a stream as far as this process knows. Another host may have appended since.
    async fn head(&self, part: &Part<'_>) -> Result<Head, AppendError> {
        let known = self.queues().head(part.stream);
        match known {
            Some(head) if head.version >= part.expected => Ok(head),
            // A command that expects an empty stream has most likely just created the id.
            None if part.expected == Version::START => Ok(Head::default()),
            _ => self.ask_head(part.stream).await,
        }
    }

    /// Asks the leader for the end of a stream. Returns it once the copy has reached it.
    async fn ask_head(&self, stream: &StreamId) -> Result<Head, AppendError> {
        let sequence = self.last_sequence(stream).await?;
        self.pending.until_copied(sequence).await;
        let version = self.copy.version(stream).await.map_err(|error| AppendError::Failed(error.0))?;
        Ok(Head { version, sequence })
    }

    /// Fails if a stream has another version than expected. Reports the conflict only once the local copy
    /// contains the winning event, so that the retry sees it.
    async fn check(&self, part: &Part<'_>, head: Head) -> Result<(), AppendError> {
        if head.version == part.expected {
            return Ok(());
        }
        self.pending.until_copied(head.sequence).await;
        let (stream, expected, actual) = (part.stream.clone(), part.expected, head.version);
        Err(AppendError::Conflict { stream, expected, actual })
    }

    /// Fails if another host has fenced a stream since events for it were decided.
    fn check_fence(&self, part: &Part<'_>, group: &Group) -> Result<(), AppendError> {
        match part.has_events() && self.fences.any_after(part.stream, group.begun()) {
            true => Err(AppendError::Fenced { stream: part.stream.clone() }),
            false => Ok(()),
        }
    }

    /// Asks the leader whether the streams still have these ends. For a group that writes nothing. Fails if
    /// the stream is not available in the end: its leader may have been deposed, and answers for some seconds
    /// as if it were not.
    async fn confirm(&self, parts: &[Part<'_>], heads: &[Head]) -> Result<Sent, AppendError> {
        for (part, head) in parts.iter().zip(heads) {
            if self.last_sequence(part.stream).await? != head.sequence {
                return Ok(Sent::Overtaken);
            }
            self.queues().remember(part.stream, *head);
        }
        match *self.available.borrow() {
            true => Ok(Sent::Complete(Ok(Appended { position: *self.copy.log().head().borrow() }))),
            false => Err(AppendError::Unavailable),
        }
    }

    /// Publishes messages until it is known that the server has stored them, or will not.
    async fn send(
        &self,
        parts: &[Part<'_>],
        heads: &[Head],
        pending: &mut PendingAppend<'_>,
    ) -> Result<Sent, AppendError> {
        loop {
            let reply = tokio::select! {
                biased;
                Ok(outcome) = &mut pending.outcome => return Ok(Sent::Complete(outcome)),
                reply = self.attempt(parts, heads, pending.id) => reply,
            };
            match reply {
                Ok(Reply { seq, .. }) => {
                    self.remember(parts, seq);
                    return Ok(Sent::Stored);
                }
                Err(NatsError::Refused(Refusal { err_code: WRONG_LAST_SEQUENCE, .. })) => {
                    return Ok(Sent::Overtaken);
                }
                Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Caches the new ends of the streams. The messages of a batch have consecutive sequences up to `last`.
    fn remember(&self, parts: &[Part<'_>], last: Sequence) {
        self.pending.note_stored(last);
        let mut queues = self.queues();
        for (part, behind) in parts.iter().rev().zip(0..) {
            queues.remember(part.stream, Head { version: part.leaves, sequence: last.before(behind) });
        }
    }

    /// Publishes one message, or an atomic batch that its last message commits.
    async fn attempt(&self, parts: &[Part<'_>], heads: &[Head], id: PublishId) -> Result<Reply, NatsError> {
        let batch = Uuid::now_v7().to_string();
        let mark = self.copy.log().newest();
        for ((part, head), number) in parts.iter().zip(heads).zip(1..) {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_STREAM, self.name.as_str());
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, head.sequence.to_string());
            id.write(&mut headers);
            if let Some(mark) = mark {
                wire::write_mark(mark, &mut headers);
            }
            let last = number == parts.len();
            if parts.len() > 1 {
                headers.insert(BATCH_ID, batch.as_str());
                headers.insert(BATCH_SEQUENCE, number.to_string());
                if last {
                    headers.insert(BATCH_COMMIT, "1");
                }
            }
            let (subject, payload) = (part.subject.clone(), part.payload.clone());
            if last {
                return self.request(subject, NatsRequest::new().headers(headers).payload(payload)).await;
            }
            self.client.publish_with_headers(subject, headers, payload).await?;
        }
        Err(NatsError::Unknown)
    }

    /// Asks the leader for the last message of an event stream. [`Sequence::START`]: there is none.
    async fn last_sequence(&self, stream: &StreamId) -> Result<Sequence, AppendError> {
        let question = json!({ "last_by_subj": wire::subject(&self.name, stream) }).to_string();
        loop {
            let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.name);
            match self.request(subject, NatsRequest::new().payload(question.clone().into())).await {
                Ok(Reply { message, .. }) => {
                    return Ok(message.map_or(Sequence::START, |message| message.seq));
                }
                Err(NatsError::Refused(Refusal { err_code: NO_MESSAGE_FOUND, .. })) => {
                    return Ok(Sequence::START);
                }
                Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a request to the server. Its error is an error too.
    async fn request(&self, subject: String, request: NatsRequest) -> Result<Reply, NatsError> {
        let message = self.client.send_request(subject, request.timeout(Some(REQUEST_TIMEOUT))).await?;
        let reply: Reply = serde_json::from_slice(&message.payload)?;
        match reply.error {
            Some(refusal) => Err(refusal.into()),
            None => Ok(reply),
        }
    }

    fn queues(&self) -> MutexGuard<'_, StreamQueues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NatsError {
    /// Returns whether a retry may help.
    fn is_transient(&self) -> bool {
        match self {
            Self::Request(error) => error.kind() != RequestErrorKind::MaxPayloadExceeded,
            Self::Refused(refusal) => refusal.code == UNAVAILABLE || refusal.err_code == BATCHES_BUSY,
            Self::Publish(_) | Self::Protocol(_) | Self::Unknown => false,
        }
    }
}
