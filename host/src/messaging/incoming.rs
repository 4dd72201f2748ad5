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
//! | it cannot be a command: no JSON, not by the schema, no id | it is a dead letter at once, whatever its size |

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{PullConsumer, StreamError, pull};
use async_nats::jetstream::message::AckKind;
use async_nats::jetstream::stream::ConsumerError;
use futures::{FutureExt as _, StreamExt as _, future, stream};
use tokio::sync::watch;

use super::Callers;
use super::dead_letters::DeadLetters;
use super::letter::{About, DeadLetterCaller};
use super::message_streams::SHARED;
use super::streams::{NoStream, Streams};
use super::subscribed::{Received, Subscribed, consumer_name};
use super::supervisor::{Panicked, supervise};
use crate::aggregate::Submit;
use crate::cluster::Cluster;
use crate::contract::{Problem, Publication, Subscription};
use crate::deployed::{Deployed, Registry};
use crate::error::Chain;
use crate::model::{Caller, Digest};
use crate::warning::Warning;

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
    deps: Deps,
    /// Set while not all streams can be created.
    warning: Warning,
    /// Set while the consumers that are no longer needed cannot be looked after.
    tending: Warning,
    /// The active subscriptions, by the component and the place in its manifest. A subscription that is
    /// removed stops.
    running: Mutex<HashMap<(Digest, usize), Running>>,
}

/// The parts of the host that the taking of messages needs.
pub(super) struct Deps {
    pub(super) registry: Arc<Registry>,
    pub(super) commands: Arc<dyn Submit>,
    pub(super) callers: Callers,
    pub(super) streams: Streams,
    pub(super) dead_letters: DeadLetters,
    /// The hosts that share the log. One of them looks after the consumers.
    pub(super) cluster: Cluster,
    /// The time for which the consumer of a dropped subscription is kept.
    pub(super) dropped_subscription: Duration,
}

struct Running {
    subscribed: Arc<Subscribed>,
    _stop: watch::Sender<()>,
}

impl Incoming {
    pub(super) fn new(deps: Deps) -> Self {
        let warning = Warning::new("some messages are neither taken nor published");
        let tending = Warning::new("messages to services that do not want them any more are kept");
        Self { inner: Arc::new(Inner { deps, warning, tending, running: Mutex::default() }) }
    }

    /// Takes the messages of all running services. Creates the streams for these and for the publications.
    pub(super) async fn run(self) {
        let Deps { registry, .. } = &self.inner.deps;
        let mut changes = registry.changes();
        loop {
            changes.mark_unchanged();
            let deployed = registry.current();
            self.inner.warning.show(self.cover(&deployed).await);
            self.follow(&deployed);
            self.inner.tending.show(self.tend(&deployed).await);
            // Err: the services are the same, and it is time to check the streams.
            let _ = tokio::time::timeout(CHECK_INTERVAL, changes.changed()).await;
        }
    }

    /// Returns the current warnings, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let running = self.running();
        let warnings = running.values().map(|running| &running.subscribed.warning);
        warnings.chain([&self.inner.warning, &self.inner.tending]).filter_map(Warning::sentence).collect()
    }

    /// Creates the streams that the services need. A service whose subjects cannot have one does not keep the
    /// others from theirs.
    async fn cover(&self, deployed: &Deployed) -> Result<(), NoStream> {
        let Deps { streams, .. } = &self.inner.deps;
        let mut outcome = streams.retire_shared().await;
        let mut published = Vec::new();
        for component in deployed.services() {
            let manifest = component.manifest();
            published.extend(manifest.publications.iter().map(Publication::pattern));
            let taken = streams.taken(&manifest.service, &subjects(&manifest.subscriptions)).await;
            outcome = outcome.and(taken);
        }
        let published: Vec<_> = published.iter().map(String::as_str).collect();
        outcome.and(streams.published(&published).await)
    }

    /// Lets go of the consumers that no deployed service wants.
    async fn tend(&self, deployed: &Deployed) -> Result<(), NoStream> {
        let Deps { streams, cluster, dropped_subscription, .. } = &self.inner.deps;
        if !cluster.owns(SHARED, None) {
            return Ok(());
        }
        let manifests = || deployed.services().map(|component| component.manifest());
        let wanted = manifests().flat_map(|manifest| {
            manifest.subscriptions.iter().map(|subscription| consumer_name(&manifest.service, subscription))
        });
        let subjects: Vec<_> = manifests().flat_map(|manifest| subjects(&manifest.subscriptions)).collect();
        streams.tend(&wanted.collect(), &subjects, *dropped_subscription).await
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
    async fn take(self, subscribed: Arc<Subscribed>, stopped: watch::Receiver<()>) {
        let taking = || async {
            let mut stopped = stopped.clone();
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
        };
        supervise("subscription", &subscribed.warning, taking).await;
    }

    /// Takes messages until the subscription is stopped or its subject has another stream. Returns when the
    /// messages in progress are processed.
    async fn consume(
        &self,
        subscribed: &Subscribed,
        mut stopped: watch::Receiver<()>,
    ) -> Result<(), Failure> {
        let Deps { streams, .. } = &self.inner.deps;
        let subject = &subscribed.subscription.subject;
        let stream = streams.find(subject).await?.ok_or_else(|| NoStream::None(subject.clone()))?;
        let consumer = streams.context.create_consumer_on_stream(subscribed.consumer(), &stream).await?;
        let current = messages(consumer).await?;
        let name = consumer_name(&subscribed.service, &subscribed.subscription);
        let earlier = match streams.shared_consumer(&name).await? {
            // The stream of all services goes when it is empty, and its consumers with it.
            Some(earlier) if stream != SHARED => {
                let messages = messages(earlier).await?;
                messages.take_while(|message| future::ready(message.is_ok())).left_stream()
            }
            _ => stream::empty().right_stream(),
        };
        subscribed.warning.clear();
        let ended = async {
            tokio::select! {
                _ = stopped.changed() => {}
                () = moved(streams, subject, &stream) => {}
            }
        };
        let messages = stream::select(current, earlier).take_until(Box::pin(ended));
        let settled = messages.map(|message| async {
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
        let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID)).map(|id| id.as_str());
        // An empty id would make all such messages one command.
        let id = id.filter(|id| !id.is_empty()).unwrap_or(&place);
        let received = Received { subject: &message.subject, id, headers, payload: &message.payload };
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
                let letters = &self.inner.deps.dead_letters;
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
        (self.inner.deps.callers)(headers).await
    }

    /// Submits the command of a message. A panic is a problem of this message, and of no other.
    pub(super) async fn process(
        &self,
        subscribed: &Subscribed,
        received: Received<'_>,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let processed = async {
            let command = subscribed.command(caller, received)?;
            self.inner.deps.commands.submit(command).await.map(drop).map_err(Problem::from)
        };
        let processed = AssertUnwindSafe(processed).catch_unwind().await;
        processed.unwrap_or_else(|panic| {
            let text = Panicked::of(&*panic).to_string();
            tracing::error!(subject = received.subject, message = received.id, "a message failed: {text}");
            Err(Problem::internal())
        })
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

/// Returns the subjects of subscriptions.
fn subjects(subscriptions: &[Subscription]) -> Vec<&str> {
    subscriptions.iter().map(|subscription| &*subscription.subject).collect()
}

/// Returns the messages of a consumer.
async fn messages(consumer: PullConsumer) -> Result<pull::Stream, StreamError> {
    consumer.stream().max_messages_per_batch(AT_ONCE).messages().await
}

/// Waits until another stream has the subject.
async fn moved(streams: &Streams, subject: &str, stream: &str) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        // Err: the servers are away, or the stream is gone, which the reading of its messages notices.
        if streams.find(subject).await.is_ok_and(|found| found.as_deref() != Some(stream)) {
            return;
        }
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
