//! Messages that become commands, as the manifests of the deployed services have it. Each subscription is a durable consumer
//! that all hosts share. A message is acknowledged when its command is in the log; sent again, it is answered from there,
//! because its id is the command's.
//!
//! | what comes of a message | then |
//! |---|---|
//! | its command is accepted | it is acknowledged |
//! | the host is busy, or its log cannot be written | it comes again, as often as that lasts |
//! | its command is refused, or fails | it comes again, [`DELIVERIES`] times in all; then it is a dead letter |
//! | it cannot be a command: no JSON, not by the schema, no id | it is a dead letter at once |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, StreamError};
use async_nats::jetstream::message::AckKind;
use async_nats::jetstream::stream::ConsumerError;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::sync::watch;

use super::dead_letters::{About, DeadLetters};
use super::streams::{NoStream, Streams};
use super::trouble::Trouble;
use crate::aggregate::Submit;
use crate::contract::{IdSource, Problem, Publication, Schema, Subscription, payload};
use crate::deployed::{Deployed, Registry};
use crate::model::{Command, CommandId, Digest, Intent, Origin, ServiceName, StreamId, hashed_uuid};

/// How often a message is delivered until it is a dead letter: six seconds in all, longer than services wait for each other.
const DELIVERIES: i64 = 6;
/// Before the second delivery; before each further one twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, for messages that come again without being counted.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After which a message comes again of which nothing is heard: longer than a command takes.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Messages of one subscription that are carried out at one time. Those of one aggregate keep their order.
const AT_ONCE: usize = 64;
/// Between two attempts to reach the servers.
const PAUSE: Duration = Duration::from_secs(1);
/// After which it is made sure that the streams are there still.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Who sends the commands.
const ACTOR: &str = "nats";

/// Why messages are not taken.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Stream(#[from] NoStream),
    #[error("the consumer cannot be made")]
    Consumer(#[from] ConsumerError),
    #[error("the consumer cannot be read")]
    Read(#[from] StreamError),
    #[error("the messages broke off")]
    BrokenOff(#[from] pull::MessagesError),
    #[error("a message cannot be acknowledged: {0}")]
    Acknowledge(async_nats::Error),
}

/// A subscription of a service that is deployed, ready to take messages.
pub(super) struct Subscribed {
    pub(super) service: ServiceName,
    pub(super) subscription: Subscription,
    payload: Schema,
    trouble: Trouble,
}

/// A message that is to become a command.
#[derive(Clone, Copy)]
pub(super) struct Received<'m> {
    pub(super) subject: &'m str,
    /// The same at each delivery.
    pub(super) id: &'m str,
    pub(super) payload: &'m [u8],
}

/// Takes the messages of all subscriptions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Incoming {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Arc<Registry>,
    commands: Arc<dyn Submit>,
    streams: Streams,
    dead_letters: DeadLetters,
    /// What keeps the streams from being made.
    trouble: Trouble,
    /// Those whose messages are taken now, by the component and the place in its manifest. What is removed stops.
    running: Mutex<HashMap<(Digest, usize), Running>>,
}

struct Running {
    subscribed: Arc<Subscribed>,
    _stop: watch::Sender<()>,
}

impl Incoming {
    pub(super) fn new(
        registry: Arc<Registry>,
        commands: Arc<dyn Submit>,
        streams: Streams,
        dead_letters: DeadLetters,
    ) -> Self {
        let trouble = Trouble::new("messages are neither taken nor published");
        let running = Mutex::default();
        Self { shared: Arc::new(Shared { registry, commands, streams, dead_letters, trouble, running }) }
    }

    /// Takes the messages of whatever is deployed, and has streams for these and for what is published.
    pub(super) async fn run(self) {
        let mut changes = self.shared.registry.changes();
        loop {
            changes.mark_unchanged();
            let deployed = self.shared.registry.current();
            match self.cover(&deployed).await {
                Ok(()) => {
                    self.shared.trouble.clear();
                    self.follow(&deployed);
                }
                Err(error) => self.shared.trouble.keep(&error),
            }
            // Err: whether it has changed or not, it is time to look again.
            let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
        }
    }

    /// Sentences about what does not work.
    pub(super) fn troubles(&self) -> Vec<String> {
        let running = self.running();
        let troubles = running.values().map(|running| &running.subscribed.trouble);
        troubles.chain([&self.shared.trouble]).filter_map(Trouble::told).collect()
    }

    async fn cover(&self, deployed: &Deployed) -> Result<(), NoStream> {
        let manifests = || deployed.services().map(|component| component.manifest());
        let taken = manifests().flat_map(|manifest| &manifest.subscriptions);
        let taken: Vec<_> = taken.map(|subscription| &*subscription.subject).collect();
        self.shared.streams.taken(&taken).await?;
        let published = manifests().flat_map(|manifest| &manifest.publications);
        let published: Vec<_> = published.map(Publication::pattern).collect();
        self.shared.streams.published(&published.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Takes no more messages; those under way are carried out.
    pub(super) fn stop(&self) {
        self.running().clear();
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<(Digest, usize), Running>> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, deployed: &Deployed) {
        let mut running = self.running();
        running.retain(|(digest, _), _| deployed.services().any(|service| service.digest() == *digest));
        for component in deployed.services() {
            let manifest = component.manifest();
            for (place, subscription) in manifest.subscriptions.iter().enumerate() {
                let key = (component.digest(), place);
                if running.contains_key(&key) {
                    continue;
                }
                match Subscribed::new(deployed, &manifest.service, subscription) {
                    Ok(subscribed) => {
                        let subscribed = Arc::new(subscribed);
                        let (stop, stopped) = watch::channel(());
                        tokio::spawn(self.clone().take(subscribed.clone(), stopped));
                        running.insert(key, Running { subscribed, _stop: stop });
                    }
                    // The gates have refused it before.
                    Err(error) => {
                        tracing::error!(service = %manifest.service, error, "messages are not taken");
                    }
                }
            }
        }
    }

    /// Takes the messages of one subscription until it is told to stop, whatever happens.
    async fn take(self, subscribed: Arc<Subscribed>, mut stopped: watch::Receiver<()>) {
        loop {
            if let Err(failure) = self.consume(&subscribed, stopped.clone()).await {
                subscribed.trouble.keep(&failure);
            }
            tokio::select! {
                // The sender is only ever dropped.
                _ = stopped.changed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Returns when it is told to stop and the messages under way are dealt with.
    async fn consume(
        &self,
        subscribed: &Subscribed,
        mut stopped: watch::Receiver<()>,
    ) -> Result<(), Failure> {
        let Streams { context, .. } = &self.shared.streams;
        let subject = &subscribed.subscription.subject;
        let stream = self.shared.streams.find(subject).await?;
        let stream = stream.ok_or_else(|| NoStream::None(subject.clone()))?;
        let consumer = context.create_consumer_on_stream(subscribed.consumer(), stream).await?;
        let messages = consumer.stream().max_messages_per_batch(AT_ONCE).messages().await?;
        subscribed.trouble.clear();
        let stopped = async move { drop(stopped.changed().await) };
        let settled = messages.take_until(Box::pin(stopped)).map(|message| async {
            let message = message?;
            self.settle(subscribed, &message).await
        });
        let mut settled = settled.buffer_unordered(AT_ONCE);
        while let Some(settled) = settled.next().await {
            settled?;
        }
        Ok(())
    }

    /// Has a message carried out, and tells the servers what came of it.
    async fn settle(&self, subscribed: &Subscribed, message: &jetstream::Message) -> Result<(), Failure> {
        let info = message.info().map_err(Failure::Acknowledge)?;
        let place = format!("{}/{}", info.stream, info.stream_sequence);
        let headers = message.headers.as_ref();
        let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID)).map_or(&*place, |id| id.as_str());
        let received = Received { subject: &message.subject, id, payload: &message.payload };
        let kind = match self.carry_out(subscribed, received).await {
            Ok(()) => AckKind::Ack,
            Err(problem) if !problem.is_passing() && (problem.is_final() || info.delivered >= DELIVERIES) => {
                let letters = &self.shared.dead_letters;
                match letters.keep(subscribed, received, &place, info.delivered, &problem).await {
                    Ok(()) => {
                        subscribed.trouble.clear();
                        AckKind::Term
                    }
                    Err(not_kept) => {
                        subscribed.trouble.keep(&not_kept);
                        AckKind::Nak(Some(LONGEST_PAUSE))
                    }
                }
            }
            Err(_) => AckKind::Nak(Some(pause(info.delivered))),
        };
        message.ack_with(kind).await.map_err(Failure::Acknowledge)
    }

    /// Carries a message out as a command.
    pub(super) async fn carry_out(
        &self,
        subscribed: &Subscribed,
        received: Received<'_>,
    ) -> Result<(), Problem> {
        let command = subscribed.command(received)?;
        self.shared.commands.submit(command).await.map(drop).map_err(Problem::from)
    }

    /// The subscription that a dead letter came by, if it is still there.
    pub(super) fn find(&self, about: &About) -> Option<Arc<Subscribed>> {
        let by = |subscribed: &&Arc<Subscribed>| {
            let Subscription { subject, aggregate, command, .. } = &subscribed.subscription;
            subscribed.service == *about.service
                && *subject == about.subscription
                && *aggregate == *about.aggregate
                && *command == *about.command
        };
        self.running().values().map(|running| &running.subscribed).find(by).cloned()
    }
}

impl Subscribed {
    /// An error is a sentence that says what is wrong with the manifest.
    fn new(deployed: &Deployed, service: &ServiceName, subscription: &Subscription) -> Result<Self, String> {
        let Subscription { subject, aggregate, command, .. } = subscription;
        let component = deployed.owner(aggregate.as_str());
        let declared = component
            .and_then(|component| component.manifest().command(aggregate.as_str(), command.as_str()));
        let declared = declared.ok_or_else(|| format!("there is no command {aggregate}.{command}"))?;
        Ok(Self {
            service: service.clone(),
            payload: Schema::of(&declared.payload)?,
            trouble: Trouble::new(format!("messages on {subject} are not taken, or not all")),
            subscription: subscription.clone(),
        })
    }

    /// The durable consumer of this subscription, whatever version of the service it is.
    fn consumer(&self) -> pull::Config {
        let Subscription { subject, aggregate, command, .. } = &self.subscription;
        // Subjects have dots and stars, and names of consumers have none.
        let hash = hashed_uuid(&[subject.as_bytes()]).simple().to_string();
        pull::Config {
            durable_name: Some(format!("kontor-{}-{aggregate}-{command}-{}", self.service, &hash[..8])),
            description: Some(format!("{subject} to {aggregate}.{command} of {}", self.service)),
            filter_subject: subject.clone(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // The host counts them itself: some do not count.
            max_deliver: -1,
            ..pull::Config::default()
        }
    }

    fn command(&self, received: Received<'_>) -> Result<Command, Problem> {
        let Received { subject, id, payload: bytes } = received;
        let payload = payload(&self.payload, bytes)?;
        let command = CommandId::from_key(id);
        let aggregate_id = match &self.subscription.id {
            None => Some(command.as_str().to_owned()),
            Some(IdSource::Part(part)) => {
                let part = subject.split('.').nth(*part as usize - 1);
                part.map(super::cloud_event::id_of)
            }
            Some(IdSource::Member(name)) => {
                let payload: Value = payload.read().map_err(|_| Problem::internal())?;
                payload.get(name).and_then(Value::as_str).map(str::to_owned)
            }
        };
        Ok(Command {
            stream: StreamId::new(self.subscription.aggregate.as_str(), &aggregate_id.unwrap_or_default())?,
            origin: Origin {
                actor: ACTOR.into(),
                correlation_id: command.shared().into(),
                causation_id: None,
            },
            id: command,
            repeatable: true,
            name: self.subscription.command.clone(),
            payload,
            intent: Intent::Decide,
            expected_version: None,
        })
    }
}

/// Before a message comes again that has been delivered so often.
fn pause(deliveries: i64) -> Duration {
    let doublings = u32::try_from(deliveries - 1).unwrap_or(0).min(16);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscribed(id: Option<IdSource>) -> Subscribed {
        Subscribed {
            service: "parcels".into(),
            subscription: Subscription {
                subject: "carrier.*.received".to_owned(),
                aggregate: "parcel".into(),
                command: "receive".into(),
                id,
            },
            payload: Schema::compile(&json!({"type": "object"})).unwrap(),
            trouble: Trouble::new("messages are not taken"),
        }
    }

    #[test]
    fn the_aggregates_id_is_where_the_subscription_says() {
        let new = CommandId::from_key("m1").to_string();
        let table = [
            (None, "carrier.A-1.received", "{}", Ok(&*new)),
            (Some(IdSource::Part(2)), "carrier.A-1.received", "{}", Ok("A-1")),
            (Some(IdSource::Part(2)), "carrier.a%2Eb.received", "{}", Ok("a.b")),
            (Some(IdSource::Part(2)), "carrier.a+b.received", "{}", Err("invalid-id")),
            (Some(IdSource::Member("parcel".to_owned())), "x", r#"{"parcel":"A-1"}"#, Ok("A-1")),
            (Some(IdSource::Member("parcel".to_owned())), "x", r#"{"parcel":7}"#, Err("invalid-id")),
            (None, "x", "[]", Err("invalid-payload")),
            (None, "x", "{", Err("invalid-json")),
        ];
        for (source, subject, payload, expected) in table {
            let received = Received { subject, id: "m1", payload: payload.as_bytes() };
            let command = subscribed(source).command(received);
            let id = command.map(|command| command.stream.id().to_owned());
            let id = id.map_err(|problem| (problem.code().to_owned(), problem.is_final()));
            let expected = expected.map(str::to_owned).map_err(|code| (code.to_owned(), true));
            assert_eq!(id, expected, "{subject} {payload}");
        }
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses: Vec<_> = [1, 2, 5, 6, 7, 1_000].map(|deliveries| pause(deliveries).as_millis()).into();
        assert_eq!(pauses, [200, 400, 3_200, 6_400, 10_000, 10_000]);
    }
}
