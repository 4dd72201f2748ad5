//! Messaging over NATS: what goes out follows from the log. Needs JetStream on the servers.

mod cloud_event;
mod outgoing;
mod owners;

use std::sync::Arc;

use async_nats::jetstream;
use tokio::task::JoinHandle;

use self::outgoing::{Outgoing, Trouble};
use crate::log::EventLog;
use crate::nats::Connection;

pub use outgoing::STREAM as EVENTS;

/// The metric that says up to which position events are published.
pub(crate) const PUBLISHED: &str = "kontor_nats_published_position";

/// Messaging as it runs.
pub struct Messaging {
    connection: Connection,
    outgoing: Arc<Trouble>,
    publishing: JoinHandle<()>,
}

impl Messaging {
    /// `replicas`: how many servers keep each stream that is made.
    pub fn start(log: Arc<dyn EventLog>, connection: &Connection, replicas: usize) -> Self {
        let context = jetstream::new(connection.client().clone());
        let trouble = Arc::new(Trouble::default());
        let outgoing = Outgoing { log, context, replicas, trouble: trouble.clone() };
        let publishing = tokio::spawn(outgoing.run());
        Self { connection: connection.clone(), outgoing: trouble, publishing }
    }

    /// Sentences about what does not work, none if all does.
    pub fn troubles(&self) -> Vec<String> {
        match self.connection.trouble() {
            // All others follow from this one.
            Some(trouble) => vec![trouble],
            None => self.outgoing.told().into_iter().collect(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_up()
    }

    /// Publishes no more. What is not published yet is when the host runs again.
    pub fn close(&self) {
        self.publishing.abort();
    }
}
