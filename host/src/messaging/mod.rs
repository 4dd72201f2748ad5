//! Messaging over NATS: events go out as the log has them, messages come in as commands. Needs JetStream on the servers.

mod cloud_event;
mod dead_letters;
mod incoming;
mod outgoing;
mod owners;
mod streams;
mod trouble;

use std::sync::Arc;

use async_nats::jetstream;
use tokio::task::JoinHandle;

use self::dead_letters::DeadLetters;
use self::incoming::Incoming;
use self::outgoing::Outgoing;
use self::streams::Streams;
use self::trouble::Trouble;
use crate::aggregate::Submit;
use crate::cluster::{Cluster, Connection};
use crate::deployed::Registry;
use crate::log::EventLog;

pub use dead_letters::{About, DeadLetter, DeadLettersError, Redriven};
pub use streams::NoStream;

/// What messaging stands on.
pub struct Deps {
    pub log: Arc<dyn EventLog>,
    pub registry: Arc<Registry>,
    pub commands: Arc<dyn Submit>,
    pub connection: Connection,
    /// How many servers keep each stream that is made.
    pub replicas: usize,
    /// One of them publishes the events.
    pub nodes: Cluster,
}

/// Messaging as it runs.
pub struct Messaging {
    connection: Connection,
    incoming: Incoming,
    dead_letters: DeadLetters,
    outgoing: Arc<Trouble>,
    tasks: [JoinHandle<()>; 2],
}

impl Messaging {
    pub fn start(deps: Deps) -> Self {
        let Deps { log, registry, commands, connection, replicas, nodes } = deps;
        let context = jetstream::new(connection.client().clone());
        let streams = Streams { context, replicas };
        let dead_letters = DeadLetters { streams: streams.clone() };
        let incoming = Incoming::new(registry.clone(), commands, streams.clone(), dead_letters.clone());
        let trouble = Arc::new(Trouble::new("events are not published"));
        let outgoing = Outgoing { log, registry, streams, trouble: trouble.clone(), nodes };
        let tasks = [tokio::spawn(outgoing.run()), tokio::spawn(incoming.clone().run())];
        Self { connection, incoming, dead_letters, outgoing: trouble, tasks }
    }

    /// Sentences about what does not work, none if all does.
    pub fn troubles(&self) -> Vec<String> {
        match self.connection.warning() {
            // All others follow from this one.
            Some(trouble) => vec![trouble],
            None => self.outgoing.told().into_iter().chain(self.incoming.troubles()).collect(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_up()
    }

    /// Up to `limit` dead letters behind `after`, oldest first; only those of a service if one is named.
    pub async fn dead_letters(
        &self,
        service: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DeadLettersError> {
        self.dead_letters.list(service, after, limit).await
    }

    /// Has these carried out, and removes those that are.
    pub async fn redrive(&self, letters: Vec<DeadLetter>) -> Result<Redriven, DeadLettersError> {
        self.dead_letters.redrive(&self.incoming, letters).await
    }

    /// Removes these, which are never to be carried out. Returns how many.
    pub async fn discard(&self, letters: Vec<DeadLetter>, actor: &str) -> Result<usize, DeadLettersError> {
        self.dead_letters.discard(letters, actor).await
    }

    /// Takes no more messages, and publishes no more. What is not published yet is when the host runs again.
    pub fn close(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.incoming.stop();
    }
}
