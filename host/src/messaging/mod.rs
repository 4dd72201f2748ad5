//! Messaging over NATS: events are published in the order of the log, and messages become commands. Needs
//! JetStream on the servers.

mod cloud_event;
mod dead_letters;
mod header;
mod incoming;
mod outgoing;
mod owners;
mod streams;
mod subscribed;
mod warning;

use std::sync::Arc;

use async_nats::{HeaderMap, jetstream};
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use self::dead_letters::DeadLetters;
use self::incoming::Incoming;
use self::outgoing::Outgoing;
use self::streams::Streams;
use self::warning::Warning;
use crate::aggregate::Submit;
use crate::cluster::{Cluster, Connection};
use crate::contract::Problem;
use crate::deployed::Registry;
use crate::log::EventLog;
use crate::model::Caller;

pub use dead_letters::{About, DeadLetter, DeadLetterCaller, DeadLettersError, Redriven};
pub(crate) use header::encode;
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
}

/// Messaging while it runs.
pub struct Messaging {
    connection: Connection,
    incoming: Incoming,
    dead_letters: DeadLetters,
    outgoing: Arc<Warning>,
    tasks: [JoinHandle<()>; 2],
}

impl Messaging {
    /// Starts to publish events and to take messages.
    pub fn start(deps: Deps) -> Self {
        let Deps { log, registry, commands, callers, connection, replicas, cluster } = deps;
        let context = jetstream::new(connection.client().clone());
        let streams = Streams { context, replicas };
        let dead_letters = DeadLetters { streams: streams.clone() };
        let incoming =
            Incoming::new(registry.clone(), (commands, callers), streams.clone(), dead_letters.clone());
        let warning = Arc::new(Warning::new("events are not published"));
        let outgoing = Outgoing { log, registry, streams, warning: warning.clone(), cluster };
        let tasks = [tokio::spawn(outgoing.run()), tokio::spawn(incoming.clone().run())];
        Self { connection, incoming, dead_letters, outgoing: warning, tasks }
    }

    /// Returns the current warnings, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        match self.connection.warning() {
            // All others follow from this one.
            Some(warning) => vec![warning],
            None => self.outgoing.sentence().into_iter().chain(self.incoming.warnings()).collect(),
        }
    }

    /// Returns whether the host is connected to NATS.
    pub fn is_connected(&self) -> bool {
        self.connection.is_up()
    }

    /// Lists up to `limit` dead letters after `after`, oldest first, optionally only those of one service.
    pub async fn dead_letters(
        &self,
        service: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLettersError> {
        self.dead_letters.list(service, after, limit).await
    }

    /// Processes dead letters again, and removes those whose commands succeed.
    pub async fn redrive(&self, letters: Vec<DeadLetter>) -> Result<Redriven, DeadLettersError> {
        self.dead_letters.redrive(&self.incoming, letters).await
    }

    /// Removes dead letters for good. Returns their number.
    pub async fn discard(&self, letters: Vec<DeadLetter>, actor: &str) -> Result<usize, DeadLettersError> {
        self.dead_letters.discard(letters, actor).await
    }

    /// Stops taking messages and publishing events. The remaining events are published when the host runs
    /// again.
    pub fn close(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.incoming.stop();
    }
}
