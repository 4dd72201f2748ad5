//! Turns messages into commands, by the subscriptions in the manifests of the running services. Each
//! subscription is a durable consumer that all hosts share. A message is acknowledged when its command is in
//! the log. A message that is sent twice is decided once, because its id is the command's.
//!
//! | the result of a message | the consequence |
//! |---|---|
//! | its command is accepted | it is acknowledged |
//! | the host is busy, or its log cannot be written | it is delivered again, until this has passed |
//! | its command is rejected, or fails | it is delivered [`DELIVERIES`] times in all; then it is a dead letter |
//! | its token is not valid | the same: another host may just have made the token |
//! | it cannot be a command: no JSON, not by the schema, no id | it is a dead letter at once |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream;
use async_nats::jetstream::consumer::StreamError;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::AckKind;
use async_nats::jetstream::stream::ConsumerError;
use futures::StreamExt as _;
use tokio::sync::watch;

use super::Callers;
use super::dead_letters::{About, DeadLetterCaller, DeadLetters};
use super::streams::{NoStream, Streams};
use super::subscribed::{Received, Subscribed};
use super::warning::Warning;
use crate::aggregate::Submit;
use crate::contract::{Problem, Publication, Subscription};
use crate::deployed::{Deployed, Registry};
use crate::error::Chain;
use crate::model::{Caller, Digest};

/// The number of deliveries before a message is a dead letter: six seconds in all, longer than services wait
/// for each other.
const DELIVERIES: i64 = 6;
/// The pause before the second delivery. It doubles before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, for messages whose deliveries are not counted.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The most messages of one subscription that are processed at one time. Those of one aggregate keep their
/// order.
const AT_ONCE: usize = 64;
/// The pause between two attempts to reach the servers.
const PAUSE: Duration = Duration::from_secs(1);
/// The interval in which the host checks that the streams still exist.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The reason why messages are not taken.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Stream(#[from] NoStream),
    #[error("the consumer cannot be created")]
    Consumer(#[from] ConsumerError),
    #[error("the consumer cannot be read")]
    Read(#[from] StreamError),
    #[error("the stream of messages was interrupted")]
    BrokenOff(#[from] pull::MessagesError),
    #[error("a message cannot be acknowledged")]
    Acknowledge(#[source] async_nats::Error),
}

/// Takes the messages of all subscriptions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Incoming {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<Registry>,
    commands: Arc<dyn Submit>,
    callers: Callers,
    streams: Streams,
    dead_letters: DeadLetters,
    /// Set while the streams cannot be created.
    warning: Warning,
    /// The active subscriptions, by the component and the place in its manifest. A subscription that is
    /// removed stops.
    running: Mutex<HashMap<(Digest, usize), Running>>,
}

struct Running {
    subscribed: Arc<Subscribed>,
    _stop: watch::Sender<()>,
}

impl Incoming {
    pub(super) fn new(
        registry: Arc<Registry>,
        (commands, callers): (Arc<dyn Submit>, Callers),
        streams: Streams,
        dead_letters: DeadLetters,
    ) -> Self {
        let warning = Warning::new("messages are neither taken nor published");
        let running = Mutex::default();
        Self {
            inner: Arc::new(Inner { registry, commands, callers, streams, dead_letters, warning, running }),
        }
    }

    /// Takes the messages of all running services. Creates the streams for these and for the publications.
    pub(super) async fn run(self) {
        let mut changes = self.inner.registry.changes();
        loop {
            changes.mark_unchanged();
            let deployed = self.inner.registry.current();
            match self.cover(&deployed).await {
                Ok(()) => {
                    self.inner.warning.clear();
                    self.follow(&deployed);
                }
                Err(error) => self.inner.warning.set(&error),
            }
            // Err: the services are the same, and it is time to check the streams.
            let _ = tokio::time::timeout(CHECK_INTERVAL, changes.changed()).await;
        }
    }

    /// Returns the current warnings, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let running = self.running();
        let warnings = running.values().map(|running| &running.subscribed.warning);
        warnings.chain([&self.inner.warning]).filter_map(Warning::sentence).collect()
    }

    /// Creates the streams that the services need.
    async fn cover(&self, deployed: &Deployed) -> Result<(), NoStream> {
        let manifests = || deployed.services().map(|component| component.manifest());
        let taken = manifests().flat_map(|manifest| &manifest.subscriptions);
        let taken: Vec<_> = taken.map(|subscription| &*subscription.subject).collect();
        self.inner.streams.taken(&taken).await?;
        let published = manifests().flat_map(|manifest| &manifest.publications);
        let published: Vec<_> = published.map(Publication::pattern).collect();
        self.inner.streams.published(&published.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Stops taking messages. Those in progress are processed to the end.
    pub(super) fn stop(&self) {
        self.running().clear();
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<(Digest, usize), Running>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts and stops subscriptions, so that those of the running services are active.
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
                    Err(error) => {
                        let (service, subject) = (&manifest.service, &subscription.subject);
                        tracing::error!(%service, subject, error = %Chain(&error), "messages are not taken");
                    }
                }
            }
        }
    }

    /// Takes the messages of one subscription until it is stopped. Retries after failures.
    async fn take(self, subscribed: Arc<Subscribed>, mut stopped: watch::Receiver<()>) {
        loop {
            if let Err(failure) = self.consume(&subscribed, stopped.clone()).await {
                subscribed.warning.set(&failure);
            }
            tokio::select! {
                // The sender is never used, only dropped.
                _ = stopped.changed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Takes messages until the subscription is stopped and the messages in progress are processed.
    async fn consume(
        &self,
        subscribed: &Subscribed,
        mut stopped: watch::Receiver<()>,
    ) -> Result<(), Failure> {
        let Streams { context, .. } = &self.inner.streams;
        let subject = &subscribed.subscription.subject;
        let stream = self.inner.streams.find(subject).await?;
        let stream = stream.ok_or_else(|| NoStream::None(subject.clone()))?;
        let consumer = context.create_consumer_on_stream(subscribed.consumer(), stream).await?;
        let messages = consumer.stream().max_messages_per_batch(AT_ONCE).messages().await?;
        subscribed.warning.clear();
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

    /// Processes a message, and reports the result to the servers.
    async fn settle(&self, subscribed: &Subscribed, message: &jetstream::Message) -> Result<(), Failure> {
        let info = message.info().map_err(Failure::Acknowledge)?;
        let place = format!("{}/{}", info.stream, info.stream_sequence);
        let headers = message.headers.as_ref();
        let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID)).map_or(&*place, |id| id.as_str());
        let received = Received { subject: &message.subject, id, payload: &message.payload };
        let caller = self.caller(message.headers.clone()).await;
        let sender = caller.as_ref().ok().map(DeadLetterCaller::of);
        let processed = match caller {
            Ok(caller) => self.process(subscribed, received, &caller).await,
            Err(problem) => Err(problem),
        };
        let kind = match processed {
            Ok(()) => AckKind::Ack,
            Err(problem)
                if !problem.is_transient() && (problem.is_final() || info.delivered >= DELIVERIES) =>
            {
                let letters = &self.inner.dead_letters;
                let times = (info.delivered, &*place);
                match letters.keep((subscribed, received), sender, times, &problem).await {
                    Ok(()) => {
                        subscribed.warning.clear();
                        AckKind::Term
                    }
                    Err(not_kept) => {
                        subscribed.warning.set(&not_kept);
                        AckKind::Nak(Some(LONGEST_PAUSE))
                    }
                }
            }
            Err(_) => AckKind::Nak(Some(pause(info.delivered))),
        };
        message.ack_with(kind).await.map_err(Failure::Acknowledge)
    }

    /// Returns the caller that the headers of a message name.
    pub(super) async fn caller(&self, headers: Option<HeaderMap>) -> Result<Caller, Problem> {
        (self.inner.callers)(headers).await
    }

    /// Submits the command of a message.
    pub(super) async fn process(
        &self,
        subscribed: &Subscribed,
        received: Received<'_>,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let command = subscribed.command(caller, received)?;
        self.inner.commands.submit(command).await.map(drop).map_err(Problem::from)
    }

    /// Returns the subscription of a dead letter, if it is still active.
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

/// Returns the pause before the next delivery of a message.
fn pause(deliveries: i64) -> Duration {
    let doublings = u32::try_from(deliveries - 1).unwrap_or(0).min(16);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses: Vec<_> = [1, 2, 5, 6, 7, 1_000].map(|deliveries| pause(deliveries).as_millis()).into();
        assert_eq!(pauses, [200, 400, 3_200, 6_400, 10_000, 10_000]);
    }
}
