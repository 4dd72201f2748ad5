//! Dead letters: messages that could not become commands, each with the reason. They are kept until an
//! operator has removed the cause and redrives them, or discards them.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DeleteMessageError, LastRawMessageErrorKind, RawMessageError, Stream};
use serde::{Deserialize, Serialize};

use super::header::encode;
use super::incoming::Incoming;
use super::letter::{ABOUT, About, DeadLetter, DeadLetterCaller, fit, kept_headers};
use super::streams::{NoStream, Streams};
use super::subscribed::{Received, Subscribed};
use crate::contract::Problem;
use crate::error::Chain;
use crate::telemetry;

/// `kontor.dead-letters.<service>.<aggregate>.<command>`
pub(super) const SUBJECTS: &str = "kontor.dead-letters.>";
/// The most bytes of messages on one page, which are in memory at one time.
const PAGE_BYTES: usize = 32 << 20;

/// The result of redriving dead letters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "RedrivenDeadLetters")]
pub struct Redriven {
    /// The number of dead letters whose commands succeeded. They are removed.
    pub done: u64,
    /// The other dead letters, with their new problems.
    pub failed: Vec<DeadLetter>,
    /// The value of `after` for the next dead letters; missing after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The reason why the host stopped before the end of the page; missing if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// The result of discarding dead letters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "DiscardedDeadLetters")]
pub struct Discarded {
    /// The number of dead letters that were removed.
    pub discarded: u64,
    /// The value of `after` for the next dead letters; missing after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The reason why the host stopped before the end of the page; missing if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// The reason why dead letters cannot be listed, redriven or discarded.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// The stream of dead letters is not available.
    #[error(transparent)]
    Stream(#[from] NoStream),
    /// A dead letter cannot be read.
    #[error("a dead letter cannot be read")]
    Read(#[from] RawMessageError),
}

/// The reason why a message did not become a dead letter. The message is delivered again.
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
    /// Keeps a message as a dead letter. `place` is the message's own in its stream, which prevents a second
    /// dead letter of the same message.
    pub(super) async fn keep(
        &self,
        (subscribed, received): (&Subscribed, Received<'_>),
        caller: Option<DeadLetterCaller>,
        (deliveries, place): (i64, &str),
        problem: &Problem,
    ) -> Result<(), NotKept> {
        let stream = self.streams.dead_letters().await?;
        let (service, subscription) = (&subscribed.service, &subscribed.subscription);
        let (aggregate, command) = (&subscription.aggregate, &subscription.command);
        let about = About {
            service: service.to_string(),
            aggregate: aggregate.to_string(),
            command: command.to_string(),
            subscription: subscription.subject.clone(),
            subject: received.subject.to_owned(),
            message_id: received.id.to_owned(),
            caller,
            deliveries,
            headers: kept_headers(received.headers),
            cut: None,
            problem: serde_json::from_slice(&problem.body()).unwrap_or_default(),
        };
        let (about, payload) = fit(about, received.payload, self.streams.largest(&stream));
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, encode(&format!("{service}/{aggregate}/{command}/{place}")));
        headers.insert(ABOUT, about);
        let message = PublishMessage::build().headers(headers).payload(payload);
        let subject = format!("kontor.dead-letters.{service}.{aggregate}.{command}");
        self.streams.context.send_publish(subject, message).await?.await?;
        tracing::warn!(
            %service,
            %aggregate,
            %command,
            message = received.id,
            code = problem.code(),
            "failed to process a message; it is kept as a dead letter"
        );
        metrics::counter!(telemetry::DEAD_LETTERS, "service" => service.shared()).increment(1);
        Ok(())
    }

    /// Lists up to `limit` dead letters after `after`, oldest first, optionally only those of one service.
    /// Returns the start of the next page with them; `None` on the last page.
    pub(super) async fn list(
        &self,
        service: Option<&str>,
        mut after: u64,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, Option<u64>), DeadLettersError> {
        let stream = self.streams.dead_letters().await?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while letters.len() < limit && bytes < PAGE_BYTES {
            let Some(message) = next(&stream, service, after).await? else { return Ok((letters, None)) };
            after = message.sequence;
            bytes += message.payload.len();
            letters.extend(DeadLetter::read(&message));
        }
        Ok((letters, Some(after)))
    }

    /// Processes dead letters again, and removes those whose commands succeed. Stops at one that cannot be
    /// removed: the servers are away, and the command is answered from the record when it is sent again.
    pub(super) async fn redrive(
        &self,
        incoming: &Incoming,
        letters: Vec<DeadLetter>,
    ) -> Result<Redriven, DeadLettersError> {
        let stream = self.streams.dead_letters().await?;
        let mut redriven = Redriven::default();
        for mut letter in letters {
            match letter.process(incoming).await {
                Ok(()) => {
                    if let Err(error) = remove(&stream, letter.id).await {
                        redriven.stopped = Some(stopped(letter.id, &error));
                        redriven.next = Some(letter.id.saturating_sub(1));
                        break;
                    }
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

    /// Removes dead letters for good. Stops at one that cannot be removed.
    pub(super) async fn discard(
        &self,
        letters: Vec<DeadLetter>,
        actor: &str,
    ) -> Result<Discarded, DeadLettersError> {
        let stream = self.streams.dead_letters().await?;
        let mut discarded = Discarded::default();
        for DeadLetter { id, about, .. } in &letters {
            if let Err(error) = remove(&stream, *id).await {
                discarded.stopped = Some(stopped(*id, &error));
                discarded.next = Some(id.saturating_sub(1));
                break;
            }
            discarded.discarded += 1;
            let About { service, subject, message_id, .. } = about;
            tracing::warn!(
                id,
                %service,
                %subject,
                message = message_id,
                %actor,
                "discarded a dead letter; its message takes no effect"
            );
        }
        Ok(discarded)
    }
}

/// Returns the sentence about a dead letter that cannot be removed.
fn stopped(id: u64, error: &DeleteMessageError) -> String {
    format!("The dead letter {id} cannot be removed: {}.", Chain(error))
}

/// Removes a dead letter, unless somebody else has removed it.
async fn remove(stream: &Stream, id: u64) -> Result<(), DeleteMessageError> {
    let Err(error) = stream.delete_message(id).await else { return Ok(()) };
    let found = stream.get_raw_message(id).await;
    let is_gone = found.is_err_and(|error| error.kind() == LastRawMessageErrorKind::NoMessageFound);
    if is_gone { Ok(()) } else { Err(error) }
}

/// Reads the first dead letter after a sequence.
async fn next(
    stream: &Stream,
    service: Option<&str>,
    after: u64,
) -> Result<Option<StreamMessage>, RawMessageError> {
    let subjects = service.map_or(SUBJECTS.to_owned(), |service| format!("kontor.dead-letters.{service}.>"));
    // None: no sequence is behind the largest.
    let Some(first) = after.checked_add(1) else { return Ok(None) };
    match stream.raw_message_builder().sequence(first).next_by_subject(subjects).send().await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error),
    }
}
