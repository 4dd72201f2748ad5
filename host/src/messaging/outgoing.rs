//! Every event of the log into a JetStream stream, in the order of the log, at least once.
//!
//! The stream itself says how far it is: its last message has the position of the event that was published last. Each message
//! is published behind the one before it or not at all (`Nats-Expected-Last-Sequence`), so none is left out, none overtakes
//! another and none is there twice, though many are under way at once, and though for a moment two hosts may do this: the one
//! that comes second looks where the stream is by now. Of several hosts one does it, as long as it is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{InfoError, LastRawMessageErrorKind, RawMessageError, Stream};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::cloud_event;
use super::owners::Owners;
use super::streams::{EVENTS, NoStream, Streams};
use super::trouble::Trouble;
use crate::cluster::Cluster;
use crate::contract::EventRef;
use crate::deployed::{HistoryError, Registry};
use crate::log::{EventLog, ReadError, Subscription};
use crate::model::{Position, Recorded};
use crate::telemetry;

/// Messages on their way at once: more are not quicker, and each is kept in memory until it is acknowledged.
const AHEAD: usize = 256;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// What is kept free for the headers in the servers' largest message.
const HEADER_BYTES: usize = 4 << 10;

pub(super) struct Outgoing {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) registry: Arc<Registry>,
    pub(super) streams: Streams,
    pub(super) trouble: Arc<Trouble>,
    pub(super) nodes: Cluster,
}

/// Where the stream is: its last message, and the event in it. Both 0 at the beginning.
#[derive(Clone, Copy)]
struct Place {
    sequence: u64,
    position: Position,
}

/// Why publishing was broken off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Stream(#[from] NoStream),
    #[error("the stream {EVENTS} cannot be looked at")]
    Look(#[from] InfoError),
    #[error("the last message of the stream {EVENTS} cannot be read")]
    Last(#[from] RawMessageError),
    #[error(
        "the stream {EVENTS} has messages of somebody else, or events of another log: remove it, or give this host an account \
         of its own"
    )]
    Foreign,
    #[error(
        "the stream {EVENTS} is at position {stream}, and the log at {log} only; if the log has been put back, remove the stream"
    )]
    Behind { stream: Position, log: Position },
    #[error("an event cannot be published")]
    Publish(#[source] PublishError),
    #[error("an event cannot be published on {subject}, where its service wants it too")]
    Elsewhere { subject: String, source: PublishError },
    /// Another host publishes.
    #[error("another host was first")]
    Overtaken,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Deployments(#[from] HistoryError),
}

impl Outgoing {
    /// Publishes until the log is closed, whatever happens.
    pub(super) async fn run(self) {
        let mut owners = Owners::default();
        loop {
            if !self.is_its_turn() {
                // Whatever was wrong is for the host to tell that publishes now.
                self.trouble.clear();
                self.turn(true).await;
            }
            let published = tokio::select! {
                published = self.publish(&mut owners) => published,
                () = self.turn(false) => Err(Failure::Overtaken),
            };
            match published {
                Ok(()) => return,
                Err(Failure::Overtaken) => self.trouble.clear(),
                Err(failure) => self.trouble.keep(&failure),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether of the hosts that share the log this one publishes.
    fn is_its_turn(&self) -> bool {
        self.nodes.owns(EVENTS, None)
    }

    /// Waits until it is its turn, or is not.
    async fn turn(&self, its: bool) {
        let mut members = self.nodes.changed();
        // Err cannot be: the sender is in there.
        while self.is_its_turn() != its && members.changed().await.is_ok() {}
    }

    /// Publishes from where the stream is. Ends when the log is closed.
    async fn publish(&self, owners: &mut Owners) -> Result<(), Failure> {
        let mut place = self.place(&self.streams.events().await?).await?;
        self.published(place.position);
        self.trouble.clear();
        let mut subscription = Subscription::new(self.log.clone(), place.position);
        let mut under_way = VecDeque::new();
        loop {
            tokio::select! {
                biased;
                position = settle(&mut under_way) => self.published(position?),
                page = subscription.next() => {
                    let Some(page) = page? else { return Ok(()) };
                    for event in page {
                        while under_way.len() >= AHEAD {
                            self.published(settle(&mut under_way).await?);
                        }
                        let service = owners.of(&*self.log, &event).await?;
                        under_way.push_back(self.send(service.as_str(), &event, &mut place).await?);
                    }
                }
            }
        }
    }

    /// Where the stream is, if it is one of this log.
    async fn place(&self, stream: &Stream) -> Result<Place, Failure> {
        let sequence = stream.get_info().await?.state.last_sequence;
        let last = match sequence {
            0 => None,
            _ => match stream.get_raw_message(sequence).await {
                Ok(message) => Some(message),
                // Somebody has removed it: all events are published again, which is at least once.
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
                Err(error) => return Err(error.into()),
            },
        };
        let Some(last) = last else {
            return Ok(Place { sequence, position: Position::START });
        };
        let (position, message_id) = cloud_event::place(&last.headers).ok_or(Failure::Foreign)?;
        let log = *self.log.head().borrow();
        if log < position {
            return Err(Failure::Behind { stream: position, log });
        }
        let same =
            |event: &Recorded| event.position == position && cloud_event::message_id(event) == message_id;
        let event = self.log.read_all(position.before(1), 1).await?;
        if event.first().is_some_and(same) { Ok(Place { sequence, position }) } else { Err(Failure::Foreign) }
    }

    /// Sends an event behind the one that was sent last.
    async fn send(&self, service: &str, event: &Recorded, place: &mut Place) -> Result<UnderWay, Failure> {
        let Streams { context, .. } = &self.streams;
        let mut headers = cloud_event::headers(service, event);
        let mut payload = Bytes::from_owner(event.payload.clone());
        if payload.len() + HEADER_BYTES > context.client().max_payload() {
            cloud_event::refer(&mut headers, event);
            payload = Bytes::new();
        }
        let message = PublishMessage::build().payload(payload).headers(headers);
        self.send_elsewhere(service, event, &message).await?;
        let message = message.expected_last_sequence(place.sequence).expected_stream(EVENTS);
        let subject = cloud_event::subject(service, event);
        let acknowledged = context.send_publish(subject, message).await.map_err(failure)?;
        *place = Place { sequence: place.sequence + 1, position: event.position };
        let Place { sequence, position } = *place;
        let settled = async move {
            let ack = acknowledged.await.map_err(failure)?;
            let in_its_place = ack.sequence == sequence && !ack.duplicate;
            if in_its_place { Ok(position) } else { Err(Failure::Overtaken) }
        };
        Ok(settled.boxed())
    }

    /// Sends an event on the subjects that its service has for it, and waits for the servers: the stream of events goes on when
    /// that is done, so it is done at least once.
    async fn send_elsewhere(
        &self,
        service: &str,
        event: &Recorded,
        message: &PublishMessage,
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
            let sent = async {
                let sent = self.streams.context.send_publish(subject.clone(), message.clone()).await?;
                sent.await
            };
            sent.await.map_err(|source| match is_under_way(&source) {
                true => Failure::Overtaken,
                false => Failure::Elsewhere { subject, source },
            })?;
        }
        Ok(())
    }

    fn published(&self, position: Position) {
        metrics::gauge!(telemetry::PUBLISHED).set(position.get() as f64);
    }
}

/// A message that is not acknowledged yet: the position of its event, when it is.
type UnderWay = BoxFuture<'static, Result<Position, Failure>>;

/// Waits for the message that was sent first. Cancel-safe: it stays there.
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
        _ if is_under_way(&error) => Failure::Overtaken,
        _ => Failure::Publish(error),
    }
}

/// Whether another host is just publishing the same event.
fn is_under_way(error: &PublishError) -> bool {
    let source =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
    source.is_some_and(|error| error.error_code() == ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT)
}
