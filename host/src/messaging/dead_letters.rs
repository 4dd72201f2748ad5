//! Messages that could not become commands, each with the reason, kept until a person has seen to the cause and has them carried
//! out after all, or removed.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DeleteMessageError, LastRawMessageErrorKind, RawMessageError, Stream};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::incoming::{Incoming, Received, Subscribed};
use super::streams::{NoStream, Streams};
use crate::contract::Problem;
use crate::telemetry;

/// `kontor.dead-letters.<service>.<aggregate>.<command>`
pub(super) const SUBJECTS: &str = "kontor.dead-letters.>";
/// What a dead letter says of its message, beside the payload.
const ABOUT: &str = "Kontor-Dead-Letter";

/// A message that could not become a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Among the dead letters.
    pub id: u64,
    #[serde(flatten)]
    pub about: About,
    /// The message itself; as text if it is no JSON.
    pub payload: Value,
    #[serde(skip)]
    raw: Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub service: String,
    pub aggregate: String,
    pub command: String,
    /// What the service has subscribed to, and what the message came on.
    pub subscription: String,
    pub subject: String,
    /// The message's id, which is the command's key.
    pub message_id: String,
    pub deliveries: i64,
    /// What it would have been answered over HTTP at last.
    pub problem: Value,
}

/// What came of carrying dead letters out after all. Those that were are gone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Redriven {
    pub done: u64,
    /// What the others failed at.
    pub failed: Vec<DeadLetter>,
}

/// Why the dead letters cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    #[error(transparent)]
    Stream(#[from] NoStream),
    #[error("a dead letter cannot be read")]
    Read(#[from] RawMessageError),
    #[error("a dead letter cannot be removed")]
    Remove(#[from] DeleteMessageError),
}

/// Why a message did not become a dead letter. It stays where it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotKept {
    #[error(transparent)]
    Stream(#[from] NoStream),
    #[error("a dead letter cannot be kept")]
    Publish(#[from] PublishError),
}

#[derive(Clone)]
pub(super) struct DeadLetters {
    pub(super) streams: Streams,
}

impl DeadLetters {
    /// Returns when it is kept. `place`: the message's own in its stream, by which a dead letter is not kept twice.
    pub(super) async fn keep(
        &self,
        subscribed: &Subscribed,
        received: Received<'_>,
        place: &str,
        deliveries: i64,
        problem: &Problem,
    ) -> Result<(), NotKept> {
        self.streams.dead_letters().await?;
        let (service, subscription) = (&subscribed.service, &subscribed.subscription);
        let (aggregate, command) = (&subscription.aggregate, &subscription.command);
        let about = About {
            service: service.to_string(),
            aggregate: aggregate.to_string(),
            command: command.to_string(),
            subscription: subscription.subject.clone(),
            subject: received.subject.to_owned(),
            message_id: received.id.to_owned(),
            deliveries,
            problem: serde_json::from_slice(&problem.body()).unwrap_or_default(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{service}/{aggregate}/{command}/{place}"));
        // This type always has a JSON form, and JSON no line breaks.
        headers.insert(ABOUT, serde_json::to_string(&about).unwrap_or_default());
        let message = PublishMessage::build().headers(headers);
        let message = message.payload(Bytes::copy_from_slice(received.payload));
        let subject = format!("kontor.dead-letters.{service}.{aggregate}.{command}");
        self.streams.context.send_publish(subject, message).await?.await?;
        tracing::warn!(%service, %aggregate, %command, message = received.id, code = problem.code(), "a dead letter");
        metrics::counter!(telemetry::DEAD_LETTERS, "service" => service.shared()).increment(1);
        Ok(())
    }

    /// Up to `limit` of them behind `after`, oldest first; only those of a service if one is named.
    pub(super) async fn list(
        &self,
        service: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLettersError> {
        let stream = self.streams.dead_letters().await?;
        let mut letters: Vec<DeadLetter> = Vec::new();
        let mut after = after;
        while letters.len() < limit {
            let Some(message) = next(&stream, service, after).await? else { break };
            after = message.sequence;
            letters.extend(DeadLetter::read(&message));
        }
        Ok(letters)
    }

    /// Has dead letters carried out, and removes those that are.
    pub(super) async fn redrive(
        &self,
        incoming: &Incoming,
        letters: Vec<DeadLetter>,
    ) -> Result<Redriven, DeadLettersError> {
        let stream = self.streams.dead_letters().await?;
        let mut redriven = Redriven::default();
        for mut letter in letters {
            match letter.carry_out(incoming).await {
                Ok(()) => {
                    stream.delete_message(letter.id).await?;
                    redriven.done += 1;
                }
                Err(problem) => {
                    letter.about.problem = serde_json::from_slice(&problem.body()).unwrap_or_default();
                    redriven.failed.push(letter);
                }
            }
        }
        Ok(redriven)
    }

    /// Removes them.
    pub(super) async fn discard(
        &self,
        letters: Vec<DeadLetter>,
        actor: &str,
    ) -> Result<usize, DeadLettersError> {
        let stream = self.streams.dead_letters().await?;
        for DeadLetter { id, about, .. } in &letters {
            stream.delete_message(*id).await?;
            let About { service, subject, message_id, .. } = about;
            tracing::warn!(id, %service, %subject, message = message_id, %actor, "a dead letter is discarded");
        }
        Ok(letters.len())
    }
}

/// The first dead letter behind a sequence.
async fn next(
    stream: &Stream,
    service: Option<&str>,
    after: u64,
) -> Result<Option<StreamMessage>, RawMessageError> {
    let subjects = service.map_or(SUBJECTS.to_owned(), |service| format!("kontor.dead-letters.{service}.>"));
    match stream.raw_message_builder().sequence(after + 1).next_by_subject(subjects).send().await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl DeadLetter {
    /// None if it is something that somebody else has put there.
    fn read(message: &StreamMessage) -> Option<Self> {
        let about = serde_json::from_str(message.headers.get(ABOUT)?.as_str()).ok()?;
        let payload = serde_json::from_slice(&message.payload);
        let payload = payload.unwrap_or_else(|_| String::from_utf8_lossy(&message.payload).into());
        Some(Self { id: message.sequence, about, payload, raw: message.payload.clone() })
    }

    async fn carry_out(&self, incoming: &Incoming) -> Result<(), Problem> {
        let About { service, subscription, subject, message_id, .. } = &self.about;
        let subscribed = incoming.find(&self.about).ok_or_else(|| {
            Problem::not_found(format!("{service} does not take messages on {subscription} any more."))
        })?;
        incoming.carry_out(&subscribed, Received { subject, id: message_id, payload: &self.raw }).await
    }
}
