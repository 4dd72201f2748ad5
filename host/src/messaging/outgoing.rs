//! Publishes every event of the log to a JetStream stream, in the order of the log, at least once.
//!
//! The stream itself records the progress: its last message has the position of the last published event. A
//! message is published directly after the one before it or not at all (`Nats-Expected-Last-Sequence`). So no
//! event is left out, none overtakes another and none is there twice, although many are in progress at once,
//! and although two hosts may publish for a moment: the slower one fails and reads the progress again. One of
//! the hosts that share the log publishes, for as long as it is a member.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{InfoError, LastRawMessageErrorKind, RawMessageError, Stream};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use super::cloud_event::{self, Prefixes};
use super::options::MessagingOptions;
use super::owners::Owners;
use super::streams::{EVENTS, NoStream, Streams};
use crate::cluster::Cluster;
use crate::contract::EventRef;
use crate::deployed::{HistoryError, Registry};
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::{CommitHash, Position, Recorded};
use crate::warning::Warning;

/// The most messages in progress: more are not faster, and each is kept in memory until it is acknowledged.
const AHEAD: usize = 256;
/// The most messages in a batch. A batch of a hundred takes two thirds of the servers' time for as many
/// messages alone, and it has to be complete before the first of it can be read.
const BATCH: usize = 64;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// The part of the largest message that is reserved for the headers.
const HEADER_BYTES: usize = 4 << 10;

/// The headers of atomic batches, from ADR-50 of the NATS server. The last message of a batch commits it.
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";
/// Error codes of the NATS server that the client has no name for: too many batches at once, which it says
/// now and then without that reason, and a batch with a message that is there already.
const TRY_AGAIN: [u64; 2] = [10_164, 10_201];

/// Publishes the events of the log.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) registry: Arc<Registry>,
    pub(super) streams: Streams,
    /// The position up to which events are published, while this host publishes them.
    pub(super) progress: Arc<watch::Sender<Option<Position>>>,
    pub(super) warning: Arc<Warning>,
    pub(super) cluster: Cluster,
    pub(super) options: MessagingOptions,
}

/// The progress of the stream: its last message, and the event in it. Both are 0 at the beginning.
#[derive(Clone, Copy)]
struct Place {
    sequence: u64,
    position: Position,
    /// The most bytes of a message that the stream takes.
    largest: usize,
    /// The most messages that the stream takes together.
    batch: usize,
}

/// The message of an event.
struct Message {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    position: Position,
}

/// The reason why publishing stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Stream(#[from] NoStream),
    #[error("the state of the stream {EVENTS} cannot be read")]
    Look(#[from] InfoError),
    #[error("the last message of the stream {EVENTS} cannot be read")]
    Last(#[from] RawMessageError),
    #[error(
        "the stream {EVENTS} has messages of another program, or events of another log: remove it, or give \
         this host an account of its own"
    )]
    Foreign,
    #[error(
        "the stream {EVENTS} is at position {stream}, and the log only at {log}; if the log was restored \
         from a backup, remove the stream"
    )]
    Behind { stream: Position, log: Position },
    #[error("an event cannot be published")]
    Publish(#[source] PublishError),
    #[error("an event cannot be sent")]
    Send(#[source] async_nats::PublishError),
    #[error("an event cannot be published on {subject}, as its service declares")]
    Elsewhere { subject: String, source: PublishError },
    /// Another host publishes.
    #[error("another host publishes the events")]
    Overtaken,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Deployments(#[from] HistoryError),
}

impl Outgoing {
    /// Publishes until the log is closed. Retries after failures.
    pub(super) async fn run(self) {
        let mut owners = Owners::default();
        loop {
            if !self.is_its_turn() {
                // From now on the host that publishes has the warnings.
                self.warning.clear();
                self.progress.send_replace(None);
                self.turn(true).await;
            }
            let published = tokio::select! {
                published = self.publish(&mut owners) => published,
                () = self.turn(false) => Err(Failure::Overtaken),
            };
            match published {
                Ok(()) => return,
                Err(Failure::Overtaken) => self.warning.clear(),
                Err(failure) => self.warning.set(&failure),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns whether this host is the one that publishes.
    fn is_its_turn(&self) -> bool {
        self.cluster.owns(EVENTS, None)
    }

    /// Waits until [`Self::is_its_turn`] returns `its`.
    async fn turn(&self, its: bool) {
        let mut members = self.cluster.changed();
        // Err: never, because `self.cluster` keeps the sender.
        while self.is_its_turn() != its && members.changed().await.is_ok() {}
    }

    /// Publishes the events that the stream does not have yet. Ends when the log is closed.
    async fn publish(&self, owners: &mut Owners) -> Result<(), Failure> {
        let mut place = self.place(&self.streams.events().await?).await?;
        self.published(place.position);
        self.warning.clear();
        let mut subscription = Subscription::new(self.log.clone(), place.position);
        let mut under_way = VecDeque::new();
        let mut prefixes = None;
        loop {
            tokio::select! {
                biased;
                position = settle(&mut under_way) => self.published(position?),
                page = subscription.next() => {
                    let Some(page) = page? else { return Ok(()) };
                    let prefixes = match &mut prefixes {
                        Some(prefixes) => prefixes,
                        None => prefixes.insert(self.prefixes().await?),
                    };
                    for events in page.chunks(place.batch) {
                        while under_way.len() >= AHEAD / place.batch {
                            self.published(settle(&mut under_way).await?);
                        }
                        let mut batch = Vec::with_capacity(events.len());
                        for event in events {
                            let service = owners.of(&*self.log, event).await?;
                            batch.push(self.message(prefixes, service.as_str(), event, &place).await?);
                        }
                        under_way.extend(self.send(batch, &mut place).await?);
                    }
                }
            }
        }
    }

    /// Returns the prefixes of this log, which has an event.
    async fn prefixes(&self) -> Result<Prefixes, ReadError> {
        let first = self.log.read_all(Position::START, 1).await?;
        let hash = first.first().map_or(CommitHash::GENESIS, |event| event.hash);
        Ok(Prefixes::new(&self.options, hash))
    }

    /// Returns the progress of the stream. Fails if it is not a stream of this log.
    async fn place(&self, stream: &Stream) -> Result<Place, Failure> {
        let sequence = stream.get_info().await?.state.last_sequence;
        let largest = self.streams.largest(stream);
        let batch = if stream.cached_info().config.allow_atomic_publish { BATCH } else { 1 };
        let last = match sequence {
            0 => None,
            _ => match stream.get_raw_message(sequence).await {
                Ok(message) => Some(message),
                // The message was removed: all events are published again, which is still at least once.
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
                Err(error) => return Err(error.into()),
            },
        };
        let Some(last) = last else {
            return Ok(Place { sequence, position: Position::START, largest, batch });
        };
        let (position, message_id) = cloud_event::place(&last.headers).ok_or(Failure::Foreign)?;
        let log = *self.log.head().borrow();
        if log < position {
            return Err(Failure::Behind { stream: position, log });
        }
        let same =
            |event: &Recorded| event.position == position && cloud_event::message_id(event) == message_id;
        let event = self.log.read_all(position.before(1), 1).await?;
        if event.first().is_some_and(same) {
            Ok(Place { sequence, position, largest, batch })
        } else {
            Err(Failure::Foreign)
        }
    }

    /// Returns the message of an event, once it is on the subjects that its service declares.
    async fn message(
        &self,
        prefixes: &Prefixes,
        service: &str,
        event: &Recorded,
        place: &Place,
    ) -> Result<Message, Failure> {
        let mut headers = cloud_event::headers(prefixes, service, event);
        let mut payload = Bytes::from_owner(event.payload.clone());
        if payload.len() + HEADER_BYTES > place.largest {
            cloud_event::refer(&mut headers, event);
            payload = Bytes::new();
        }
        let subject = cloud_event::subject(service, event);
        let message = Message { subject, headers, payload, position: event.position };
        self.send_elsewhere(prefixes, service, event, &message).await?;
        Ok(message)
    }

    /// Sends messages after the one that was sent last: several as an atomic batch, whose last message
    /// commits it. Returns what is to be awaited.
    async fn send(&self, mut batch: Vec<Message>, place: &mut Place) -> Result<Option<UnderWay>, Failure> {
        let Streams { context, .. } = &self.streams;
        let Some(mut last) = batch.pop() else { return Ok(None) };
        let (id, count) = (Uuid::now_v7().to_string(), batch.len() + 1);
        let mut expects = Some(place.sequence);
        let mut prepare = |headers: &mut HeaderMap, number: usize| {
            headers.insert(NATS_EXPECTED_STREAM, EVENTS);
            if let Some(sequence) = expects.take() {
                headers.insert(NATS_EXPECTED_LAST_SEQUENCE, sequence.to_string());
            }
            if count > 1 {
                headers.insert(BATCH_ID, id.as_str());
                headers.insert(BATCH_SEQUENCE, number.to_string());
            }
        };
        for (mut message, number) in batch.into_iter().zip(1..) {
            prepare(&mut message.headers, number);
            let Message { subject, headers, payload, .. } = message;
            context.client().publish_with_headers(subject, headers, payload).await.map_err(Failure::Send)?;
        }
        prepare(&mut last.headers, count);
        if count > 1 {
            last.headers.insert(BATCH_COMMIT, "1");
        }
        let Message { subject, headers, payload, position } = last;
        let message = PublishMessage::build().payload(payload).headers(headers);
        let acknowledged = context.send_publish(subject, message).await.map_err(failure)?;
        let sequence = place.sequence + count as u64;
        *place = Place { sequence, position, ..*place };
        let settled = async move {
            let ack = acknowledged.await.map_err(failure)?;
            let in_its_place = ack.sequence == sequence && !ack.duplicate;
            if in_its_place { Ok(position) } else { Err(Failure::Overtaken) }
        };
        Ok(Some(settled.boxed()))
    }

    /// Sends an event on the subjects that its service declares for it, and waits for the servers. The stream
    /// of events continues only after that, so these are published at least once too.
    async fn send_elsewhere(
        &self,
        prefixes: &Prefixes,
        service: &str,
        event: &Recorded,
        Message { headers, payload, .. }: &Message,
    ) -> Result<(), Failure> {
        let deployed = self.registry.current();
        let publications =
            deployed.service(service).map_or(&[][..], |component| &component.manifest().publications);
        for publication in publications {
            let EventRef { aggregate, event: name } = &publication.event;
            if *name != event.name || *aggregate != *event.stream.aggregate() {
                continue;
            }
            let subject = publication.subject_of(&cloud_event::token(event.stream.id()));
            let id = cloud_event::message_id_on(&subject, event);
            let send = async |message: PublishMessage| {
                let message = message.message_id(&id);
                self.streams.context.send_publish(subject.clone(), message).await?.await
            };
            let message = PublishMessage::build().payload(payload.clone()).headers(headers.clone());
            let mut sent = send(message).await;
            if sent.as_ref().is_err_and(|error| has_code(error, ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) {
                // The stream is somebody else's, and its limit must not stop the events of all services.
                let mut headers = cloud_event::headers(prefixes, service, event);
                cloud_event::refer(&mut headers, event);
                sent = send(PublishMessage::build().headers(headers)).await;
            }
            sent.map_err(|source| match is_under_way(&source) {
                true => Failure::Overtaken,
                false => Failure::Elsewhere { subject, source },
            })?;
        }
        Ok(())
    }

    fn published(&self, position: Position) {
        self.progress.send_replace(Some(position));
    }
}

/// A message that is not acknowledged yet. Resolves to the position of its event when it is.
type UnderWay = BoxFuture<'static, Result<Position, Failure>>;

/// Waits for the oldest message to be acknowledged. Cancel-safe: the message stays in the queue.
async fn settle(under_way: &mut VecDeque<UnderWay>) -> Result<Position, Failure> {
    let Some(first) = under_way.front_mut() else {
        return std::future::pending().await;
    };
    let settled = first.await;
    under_way.pop_front();
    settled
}

fn failure(error: PublishError) -> Failure {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Failure::Overtaken,
        _ if code(&error).is_some_and(|code| TRY_AGAIN.contains(&code.0)) => Failure::Overtaken,
        _ if is_under_way(&error) => Failure::Overtaken,
        _ => Failure::Publish(error),
    }
}

/// Returns whether another host is publishing the same event at this moment.
fn is_under_way(error: &PublishError) -> bool {
    has_code(error, ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT)
}

fn has_code(error: &PublishError, wanted: ErrorCode) -> bool {
    code(error) == Some(wanted)
}

fn code(error: &PublishError) -> Option<ErrorCode> {
    let source = std::error::Error::source(error)?.downcast_ref::<jetstream::Error>()?;
    Some(source.error_code())
}
