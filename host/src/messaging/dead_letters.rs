//! Dead letters: messages that could not become commands, each with the reason. They are kept until an
//! operator has removed the cause and redrives them, or discards them.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DeleteMessageError, LastRawMessageErrorKind, RawMessageError, Stream};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::incoming::Incoming;
use super::streams::{NoStream, Streams};
use super::subscribed::{Received, Subscribed};
use crate::contract::{Problem, ProblemCode};
use crate::model::{Actor, Caller, Role};
use crate::telemetry;

/// `kontor.dead-letters.<service>.<aggregate>.<command>`
pub(super) const SUBJECTS: &str = "kontor.dead-letters.>";
/// The header with the facts about a dead letter.
const ABOUT: &str = "Kontor-Dead-Letter";

/// A message that could not become a command.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeadLetter {
    /// The id of the dead letter: its sequence in the stream of dead letters.
    pub id: u64,
    /// The facts about the message.
    #[serde(flatten)]
    pub about: About,
    /// The payload of the message, as a string if it is no JSON.
    pub payload: Value,
    #[serde(skip)]
    raw: Bytes,
}

/// The facts about a message that could not become a command.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct About {
    /// The service that subscribes to the message.
    pub service: String,
    /// The aggregate of the command.
    pub aggregate: String,
    /// The command.
    pub command: String,
    /// The subject of the subscription, which may have wildcards.
    pub subscription: String,
    /// The subject of the message.
    pub subject: String,
    /// The message's id, which is the command's key.
    pub message_id: String,
    /// The caller of the command; missing if its token was not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<DeadLetterCaller>,
    /// The number of times that the message was delivered.
    pub deliveries: i64,
    /// The problem of the last delivery, as HTTP would have answered it.
    pub problem: Value,
}

/// The caller of the command of a dead letter. A redrive sends the command for the same caller, whose token
/// may have expired since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeadLetterCaller {
    /// The subject of the message's token, or `nats`; missing if it is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Actor>,
    /// The roles of the subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// The user for whom the subject said it acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Actor>,
}

impl DeadLetterCaller {
    pub(super) fn of(caller: &Caller) -> Self {
        let Caller { subject, roles, on_behalf_of, .. } = caller.clone();
        Self { subject, roles: roles.to_vec(), on_behalf_of }
    }

    fn caller(&self) -> Caller {
        let Self { subject, roles, on_behalf_of } = self.clone();
        Caller { subject, roles: roles.into(), on_behalf_of, via: None }
    }
}

/// The result of redriving dead letters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "RedrivenDeadLetters")]
pub struct Redriven {
    /// The number of dead letters whose commands succeeded. They are removed.
    pub done: u64,
    /// The other dead letters, with their new problems.
    pub failed: Vec<DeadLetter>,
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
    /// A dead letter cannot be removed.
    #[error("a dead letter cannot be removed")]
    Remove(#[from] DeleteMessageError),
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
            caller,
            deliveries,
            problem: serde_json::from_slice(&problem.body()).unwrap_or_default(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{service}/{aggregate}/{command}/{place}"));
        // This type always has a JSON form, and it has no line breaks.
        headers.insert(ABOUT, serde_json::to_string(&about).unwrap_or_default());
        let message = PublishMessage::build().headers(headers);
        let message = message.payload(Bytes::copy_from_slice(received.payload));
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

    /// Processes dead letters again, and removes those whose commands succeed.
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

    /// Removes dead letters for good. Returns their number.
    pub(super) async fn discard(
        &self,
        letters: Vec<DeadLetter>,
        actor: &str,
    ) -> Result<usize, DeadLettersError> {
        let stream = self.streams.dead_letters().await?;
        for DeadLetter { id, about, .. } in &letters {
            stream.delete_message(*id).await?;
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
        Ok(letters.len())
    }
}

/// Reads the first dead letter after a sequence.
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
    /// Reads a dead letter. Returns none if the message was not written by a host.
    fn read(message: &StreamMessage) -> Option<Self> {
        let about = serde_json::from_str(message.headers.get(ABOUT)?.as_str()).ok()?;
        let payload = serde_json::from_slice(&message.payload);
        let payload = payload.unwrap_or_else(|_| String::from_utf8_lossy(&message.payload).into());
        Some(Self { id: message.sequence, about, payload, raw: message.payload.clone() })
    }

    async fn process(&self, incoming: &Incoming) -> Result<(), Problem> {
        let About { service, subscription, subject, message_id, caller, problem, .. } = &self.about;
        let subscribed = incoming.find(&self.about).ok_or_else(|| {
            Problem::not_found(format!("{service} no longer subscribes to {subscription}."))
        })?;
        let caller = match caller {
            Some(sender) => sender.caller(),
            None if problem["code"] == ProblemCode::InvalidToken.name() => {
                let detail = "The message came with a token that was not valid, so its command has no \
                              caller: discard it, and have it sent again.";
                return Err(Problem::new(ProblemCode::InvalidToken, detail));
            }
            // An earlier version of Kontor has kept it.
            None => incoming.caller(None).await?,
        };
        let received = Received { subject, id: message_id, payload: &self.raw };
        incoming.process(&subscribed, received, &caller).await
    }
}
