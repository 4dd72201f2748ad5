//! How appends get into the stream: each message on the condition that its event stream still ends where it did.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::{Client, HeaderMap, Request as NatsRequest, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use super::Sequence;
use super::pending_appends::{Landed, Landing, Landings};
use super::stream_queues::{Group, Head, Lanes, Request};
use super::wire::{self, Message, PublishId};
use crate::error::with_causes;
use crate::log::embedded::LocalCopy;
use crate::log::{AppendError, Appended, EventLog as _};
use crate::model::{StreamId, Version};

/// How long the fate of an append may be open, electing another leader (4.3 to 6.4 s) included. After it nobody knows.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one attempt waits for its acknowledgement.
const ACKNOWLEDGED: Duration = Duration::from_secs(2);
/// The wait before the next attempt, if the server could not take one.
const PAUSE: Duration = Duration::from_millis(20);

/// See the server's ADR-50. The last message of a batch commits it.
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// The server's numbers of errors.
const WRONG_LAST_SEQUENCE: u32 = 10_071;
const NO_MESSAGE_FOUND: u32 = 10_037;
/// Of the numbers of HTTP: no leader, a full queue, and the like.
const UNAVAILABLE: u32 = 503;
/// Too many batches at once; now and then also without that.
const BATCHES_BUSY: u32 = 10_164;

pub(super) struct Publisher {
    pub(super) client: Client,
    /// Of the stream.
    pub(super) name: String,
    pub(super) copy: Arc<LocalCopy>,
    pub(super) landings: Arc<Landings>,
    pub(super) lanes: Mutex<Lanes>,
}

/// What the server answers to a publish, or to a request for a message.
#[derive(Deserialize)]
struct Reply {
    /// With one, nothing else counts.
    error: Option<Refusal>,
    #[serde(default)]
    seq: Sequence,
    message: Option<StoredMessage>,
}

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

#[derive(Debug, thiserror::Error)]
enum NatsError {
    #[error("the NATS server cannot be reached")]
    Request(#[from] async_nats::RequestError),
    #[error("the NATS server refuses: {0}")]
    Refused(#[from] Refusal),
    #[error("the NATS server answers what is not its protocol")]
    Protocol(#[from] serde_json::Error),
    #[error("no answer in {} s that would tell what has become of it", PATIENCE.as_secs())]
    NotKnown,
    #[error("the NATS server cannot be reached")]
    Publish(#[from] async_nats::PublishError),
}

impl From<NatsError> for AppendError {
    fn from(error: NatsError) -> Self {
        match &error {
            NatsError::Request(request) if request.kind() == RequestErrorKind::MaxPayloadExceeded => {
                Self::TooLarge(with_causes(&error))
            }
            _ => Self::Failed(Arc::new(error)),
        }
    }
}

/// One event stream's share of a group.
struct Part<'a> {
    stream: &'a StreamId,
    /// The version of the stream before and after.
    expected: Version,
    leaves: Version,
    subject: String,
    payload: Bytes,
}

/// How far a group has come.
enum Sent {
    /// It is in the stream, and will come by.
    Stored,
    Landed(Landed),
    /// One of the event streams has ended elsewhere.
    Overtaken,
}

impl Publisher {
    /// Gives a request its place in the order and starts what can go out. None if too many wait.
    pub(super) fn enqueue(self: &Arc<Self>, request: Request) -> Option<()> {
        let ready = self.lanes().push(request).ok()?;
        self.start(ready);
        Some(())
    }

    fn start(self: &Arc<Self>, groups: impl IntoIterator<Item = Group>) {
        for group in groups {
            tokio::spawn(self.clone().carry_out(group));
        }
    }

    /// Brings a group out and tells it what has become of it.
    async fn carry_out(self: Arc<Self>, group: Group) {
        let fate = self.fate(&group).await;
        // Whoever is told may let go of the log, which is to be free then.
        drop(self);
        let mut behind = group.requests.iter().map(Request::events).sum::<usize>();
        for request in group.requests {
            behind -= request.events();
            let fate =
                fate.clone().map(|Appended { position }| Appended { position: position.before(behind) });
            // Err: nobody waits any more.
            let _ = request.reply.send(fate);
        }
    }

    /// Lets the next groups go as soon as they know what they are bound to.
    async fn fate(self: &Arc<Self>, group: &Group) -> Landed {
        let mut landing = self.landings.expect();
        let failure = self.lanes().failure(group);
        let sent = match failure {
            Some(error) => Err(error),
            None => match timeout(PATIENCE, self.bring(group, &mut landing)).await {
                Ok(sent) => sent,
                Err(_) => Err(NatsError::NotKnown.into()),
            },
        };
        let ready = {
            let mut lanes = self.lanes();
            if let Err(error) | Ok(Sent::Landed(Err(error))) = &sent {
                lanes.fail(group, error);
            }
            lanes.done(&group.streams)
        };
        self.start(ready);
        let landed = match sent? {
            Sent::Landed(landed) => landed,
            _ => match timeout(PATIENCE, &mut landing.landed).await {
                Ok(Ok(landed)) => landed,
                _ => Err(NatsError::NotKnown.into()),
            },
        };
        landed.inspect_err(|error| self.lanes().fail(group, error))
    }

    /// Publishes a group on top of what its streams end with, as often as others come first without changing anything.
    async fn bring(&self, group: &Group, landing: &mut Landing<'_>) -> Result<Sent, AppendError> {
        let parts = self.parts(group)?;
        let mut heads = Vec::with_capacity(parts.len());
        for part in &parts {
            heads.push(self.head(part).await?);
        }
        loop {
            if let Ok(landed) = landing.landed.try_recv() {
                return Ok(Sent::Landed(landed));
            }
            for (part, head) in parts.iter().zip(&heads) {
                self.check(part, *head).await?;
            }
            let sent = match parts.iter().any(|part| part.leaves > part.expected) {
                true => self.send(&parts, &heads, landing).await?,
                false => self.confirm(&parts, &heads).await?,
            };
            let Sent::Overtaken = sent else { return Ok(sent) };
            for (part, head) in parts.iter().zip(&mut heads) {
                *head = self.ask_head(part.stream).await?;
            }
        }
    }

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
            let commits = appends().filter(|append| !append.events.is_empty());
            let payload = Message::of(stream, (number, count), commits).encode().map_err(NatsError::from)?;
            Ok(Part { stream, expected, leaves, subject: wire::subject(&self.name, stream), payload })
        };
        group.streams.iter().zip(1..).map(part).collect()
    }

    /// Where a stream ends as far as this process knows; it may have gone on elsewhere.
    async fn head(&self, part: &Part<'_>) -> Result<Head, AppendError> {
        let known = self.lanes().head(part.stream);
        match known {
            Some(head) if head.version >= part.expected => Ok(head),
            // Whoever expects nothing has most likely just made the id.
            None if part.expected == Version::START => Ok(Head::default()),
            _ => self.ask_head(part.stream).await,
        }
    }

    /// Where a stream ends for the leader, once the copy has that too.
    async fn ask_head(&self, stream: &StreamId) -> Result<Head, AppendError> {
        let sequence = self.last_sequence(stream).await?;
        self.landings.reached(sequence).await;
        let version = self.copy.version(stream).await.map_err(|error| AppendError::Failed(error.0))?;
        Ok(Head { version, sequence })
    }

    /// A conflict is told when whoever decides again can read what came first.
    async fn check(&self, part: &Part<'_>, head: Head) -> Result<(), AppendError> {
        if head.version == part.expected {
            return Ok(());
        }
        self.landings.reached(head.sequence).await;
        let (stream, expected, actual) = (part.stream.clone(), part.expected, head.version);
        Err(AppendError::Conflict { stream, expected, actual })
    }

    /// Nothing is to be written: asks whether the streams still end where they did.
    async fn confirm(&self, parts: &[Part<'_>], heads: &[Head]) -> Result<Sent, AppendError> {
        for (part, head) in parts.iter().zip(heads) {
            if self.last_sequence(part.stream).await? != head.sequence {
                return Ok(Sent::Overtaken);
            }
            self.lanes().remember(part.stream, *head);
        }
        Ok(Sent::Landed(Ok(Appended { position: *self.copy.log().head().borrow() })))
    }

    /// Publishes until it is known that the server has stored it, or will not.
    async fn send(
        &self,
        parts: &[Part<'_>],
        heads: &[Head],
        landing: &mut Landing<'_>,
    ) -> Result<Sent, AppendError> {
        loop {
            let reply = tokio::select! {
                biased;
                Ok(landed) = &mut landing.landed => return Ok(Sent::Landed(landed)),
                reply = self.attempt(parts, heads, landing.id) => reply,
            };
            match reply {
                Ok(Reply { seq, .. }) => {
                    self.remember(parts, seq);
                    return Ok(Sent::Stored);
                }
                Err(NatsError::Refused(Refusal { err_code: WRONG_LAST_SEQUENCE, .. })) => {
                    return Ok(Sent::Overtaken);
                }
                Err(error) if error.passes() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The messages of a batch have the sequences up to that of the last.
    fn remember(&self, parts: &[Part<'_>], last: Sequence) {
        self.landings.stored(last);
        let mut lanes = self.lanes();
        for (part, behind) in parts.iter().rev().zip(0..) {
            lanes.remember(part.stream, Head { version: part.leaves, sequence: last.before(behind) });
        }
    }

    /// One message, or a batch that the last one commits.
    async fn attempt(&self, parts: &[Part<'_>], heads: &[Head], id: PublishId) -> Result<Reply, NatsError> {
        let batch = Uuid::now_v7().to_string();
        for ((part, head), number) in parts.iter().zip(heads).zip(1..) {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_STREAM, self.name.as_str());
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, head.sequence.to_string());
            id.write(&mut headers);
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
                return self.ask(subject, NatsRequest::new().headers(headers).payload(payload)).await;
            }
            self.client.publish_with_headers(subject, headers, payload).await?;
        }
        Err(NatsError::NotKnown)
    }

    /// Of the last message of an event stream, asked of the leader; 0 if there is none.
    async fn last_sequence(&self, stream: &StreamId) -> Result<Sequence, AppendError> {
        let question = json!({ "last_by_subj": wire::subject(&self.name, stream) }).to_string();
        loop {
            let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.name);
            match self.ask(subject, NatsRequest::new().payload(question.clone().into())).await {
                Ok(Reply { message, .. }) => {
                    return Ok(message.map_or(Sequence::START, |message| message.seq));
                }
                Err(NatsError::Refused(Refusal { err_code: NO_MESSAGE_FOUND, .. })) => {
                    return Ok(Sequence::START);
                }
                Err(error) if error.passes() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn ask(&self, subject: String, request: NatsRequest) -> Result<Reply, NatsError> {
        let message = self.client.send_request(subject, request.timeout(Some(ACKNOWLEDGED))).await?;
        let reply: Reply = serde_json::from_slice(&message.payload)?;
        match reply.error {
            Some(refusal) => Err(refusal.into()),
            None => Ok(reply),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NatsError {
    /// Whether trying again may help.
    fn passes(&self) -> bool {
        match self {
            Self::Request(error) => error.kind() != RequestErrorKind::MaxPayloadExceeded,
            Self::Refused(refusal) => refusal.code == UNAVAILABLE || refusal.err_code == BATCHES_BUSY,
            Self::Publish(_) | Self::Protocol(_) | Self::NotKnown => false,
        }
    }
}
