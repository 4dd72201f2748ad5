//! Messaging over NATS: events are published in the order of the log, and messages become commands. Needs
//! JetStream on the servers.

mod cloud_event;
mod dead_letters;
mod header;
mod incoming;
mod letter;
mod message_streams;
mod options;
mod outgoing;
mod owners;
mod streams;
mod subscribed;
mod supervisor;

use std::sync::Arc;

use async_nats::{HeaderMap, jetstream};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::dead_letters::DeadLetters;
use self::incoming::Incoming;
use self::outgoing::Outgoing;
use self::streams::Streams;
use self::supervisor::supervise;
use crate::aggregate::Submit;
use crate::cluster::{Cluster, Connection};
use crate::contract::Problem;
use crate::deployed::Registry;
use crate::log::EventLog;
use crate::model::{Caller, Position};
use crate::warning::Warning;

pub use dead_letters::{DeadLettersError, Discarded, Redriven};
pub(crate) use header::encode;
pub use letter::{About, Cut, DeadLetter, DeadLetterCaller};
pub use options::{MessagingOptions, MessagingOptionsError};
pub use streams::NoStream;

/// Returns the caller that the headers of a message name.
pub(crate) type Callers =
    Arc<dyn Fn(Option<HeaderMap>) -> BoxFuture<'static, Result<Caller, Problem>> + Send + Sync>;

/// The parts of the host that messaging needs.
pub struct Deps {
    /// The log, whose events are published.
    pub log: Arc<dyn EventLog>,
    /// The running services, with their subscriptions and publications.
    pub registry: Arc<Registry>,
    /// Takes the commands.
    pub commands: Arc<dyn Submit>,
    /// Returns the callers of the commands.
    pub(crate) callers: Callers,
    /// The connection to NATS.
    pub connection: Connection,
    /// The number of servers that keep each stream that the host creates.
    pub replicas: usize,
    /// The hosts that share the log. One of them publishes the events.
    pub cluster: Cluster,
    /// The settings.
    pub options: MessagingOptions,
}

/// Messaging while it runs.
pub struct Messaging {
    connection: Connection,
    incoming: Incoming,
    dead_letters: DeadLetters,
    outgoing: Arc<Warning>,
    progress: Arc<watch::Sender<Option<Position>>>,
    /// The restarts of the two tasks.
    restarts: [Arc<Warning>; 2],
    tasks: [JoinHandle<()>; 2],
}

impl Messaging {
    /// Starts to publish events and to take messages.
    pub fn start(deps: Deps) -> Self {
        let Deps { log, registry, commands, callers, connection, replicas, cluster, options } = deps;
        let context = jetstream::new(connection.client().clone());
        let streams = Streams { context, replicas };
        let dead_letters = DeadLetters { streams: streams.clone() };
        let incoming = Incoming::new(incoming::Deps {
            registry: registry.clone(),
            commands,
            callers,
            streams: streams.clone(),
            dead_letters: dead_letters.clone(),
            cluster: cluster.clone(),
            dropped_subscription: options.dropped_subscription,
        });
        let warning = Arc::new(Warning::new("events are not published"));
        let progress = Arc::new(watch::Sender::new(None));
        let outgoing = {
            let (warning, progress) = (warning.clone(), progress.clone());
            Outgoing { log, registry, streams, progress, warning, cluster, options }
        };
        let restarts = ["the publishing of events broke off", "the taking of messages broke off"]
            .map(|consequence| Arc::new(Warning::new(consequence)));
        let [publisher, taker] = restarts.clone();
        let taken = incoming.clone();
        let tasks = [
            tokio::spawn(async move {
                supervise("publisher", &publisher, || outgoing.clone().run()).await;
            }),
            tokio::spawn(async move { supervise("taker", &taker, || taken.clone().run()).await }),
        ];
        Self { connection, incoming, dead_letters, outgoing: warning, progress, restarts, tasks }
    }

    /// Returns the current warnings, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        match self.connection.warning() {
            // All others follow from this one.
            Some(warning) => vec![warning],
            None => {
                let restarts = self.restarts.iter().filter_map(|warning| warning.sentence());
                self.outgoing.sentence().into_iter().chain(restarts).chain(self.incoming.warnings()).collect()
            }
        }
    }

    /// Returns the position up to which events are published. `None`: another host publishes them, or this
    /// one has not begun.
    pub fn published(&self) -> Option<Position> {
        *self.progress.borrow()
    }

    /// Returns whether the host is connected to NATS.
    pub fn is_connected(&self) -> bool {
        self.connection.is_up()
    }

    /// Lists up to `limit` dead letters after `after`, oldest first, optionally only those of one service.
    /// Returns the start of the next page with them; `None` on the last page.
    pub async fn dead_letters(
        &self,
        service: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, Option<u64>), DeadLettersError> {
        self.dead_letters.list(service, after, limit).await
    }

    /// Processes dead letters again, and removes those whose commands succeed.
    pub async fn redrive(&self, letters: Vec<DeadLetter>) -> Result<Redriven, DeadLettersError> {
        self.dead_letters.redrive(&self.incoming, letters).await
    }

    /// Removes dead letters for good.
    pub async fn discard(
        &self,
        letters: Vec<DeadLetter>,
        actor: &str,
    ) -> Result<Discarded, DeadLettersError> {
        self.dead_letters.discard(letters, actor).await
    }

    /// Stops taking messages and publishing events. The remaining events are published when the host runs
    /// again.
    pub fn close(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.incoming.stop();
    }
}
