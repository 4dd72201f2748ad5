//! Keeps the local copy up to date with the stream.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::push::OrderedConfig};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::watch;

use super::Sequence;
use super::pending_appends::PendingAppends;
use super::wire::{Message, PublishId};
use crate::clock::deadline_after;
use crate::error::Chain;
use crate::log::embedded::LocalCopy;
use crate::log::{Append, AppendError, Appended};

/// The largest number of messages that are being copied: two of the largest groups of the copy, so that the
/// next group is always ready.
const MAX_APPLYING: usize = 2_048;
/// The wait before the stream is followed again after an error.
const PAUSE: Duration = Duration::from_millis(500);
/// The time after which the stream is followed again if a stored message has not been delivered. The server
/// that delivers may be gone although the connection is up.
const STALLED: Duration = Duration::from_secs(1);
/// The timeout of one request to the servers. Without a leader none of them answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Copies the messages of the stream.
pub(super) struct Follower {
    pub(super) client: Client,
    /// The name of the stream.
    pub(super) name: String,
    pub(super) copy: Arc<LocalCopy>,
    pub(super) pending: Arc<PendingAppends>,
}

/// The reasons why the stream cannot be followed any further.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the stream cannot be followed")]
    Nats(#[from] async_nats::Error),
    #[error("the server has ended the delivery of messages")]
    Ended,
    #[error("messages of the stream are not delivered")]
    Stalled,
    #[error(
        "message {missing} of the stream is missing: it has been deleted or purged; restore the stream from \
         a backup, or start with a new one"
    )]
    Gap { missing: Sequence },
    #[error(transparent)]
    Copy(#[from] AppendError),
}

/// A message that the copy has processed.
struct Applied {
    sequence: Sequence,
    publisher: Option<PublishId>,
    outcome: Result<Appended, AppendError>,
}

impl Follower {
    /// Follows the stream until `stop` is closed, again after each error.
    pub(super) async fn run(self, mut stop: watch::Receiver<()>) {
        loop {
            let broken = tokio::select! {
                biased;
                _ = stop.changed() => return,
                Err(broken) = self.follow() => broken,
            };
            tracing::warn!(
                error = %Chain(&broken),
                stream = self.name,
                "cannot follow the log's stream; trying again"
            );
            tokio::select! {
                biased;
                _ = stop.changed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Follows the stream from the end of the copy until an error.
    async fn follow(&self) -> Result<std::convert::Infallible, Broken> {
        let mut last = *self.copy.sequence().borrow();
        let mut context = jetstream::new(self.client.clone());
        context.set_timeout(REQUEST_TIMEOUT);
        let stream = context.get_stream_no_info(&self.name).await;
        let config = OrderedConfig {
            deliver_subject: self.client.new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: last.next().get() },
            ..OrderedConfig::default()
        };
        let consumer = stream.map_err(boxed)?.create_consumer(config).await.map_err(boxed)?;
        let mut messages = consumer.messages().await.map_err(boxed)?;
        let mut applying = FuturesOrdered::new();
        let mut batch = Vec::new();
        let mut last_at_check = last;
        let mut checks = tokio::time::interval_at(deadline_after(STALLED), STALLED);
        let broken = loop {
            tokio::select! {
                biased;
                Some(applied) = applying.next(), if !applying.is_empty() => {
                    if let Err(error) = self.resolve(applied) {
                        break error.into();
                    }
                }
                _ = checks.tick() => {
                    if last_at_check == last && last < self.pending.last_stored() {
                        break Broken::Stalled;
                    }
                    last_at_check = last;
                }
                message = messages.next(), if applying.len() < MAX_APPLYING => {
                    match self.next(message, &mut last) {
                        Ok(message) => applying.extend(self.apply(message, &mut batch)),
                        Err(broken) => break broken,
                    }
                }
            }
        };
        // The next attempt starts behind the messages that are being copied.
        while let Some(applied) = applying.next().await {
            self.resolve(applied)?;
        }
        Err(broken)
    }

    /// Returns the next message. Fails if there is a gap before it.
    fn next(
        &self,
        message: Option<Result<jetstream::Message, impl std::error::Error + Send + Sync + 'static>>,
        last: &mut Sequence,
    ) -> Result<(Sequence, jetstream::Message), Broken> {
        let message = message.ok_or(Broken::Ended)?.map_err(boxed)?;
        let sequence = Sequence::new(message.info()?.stream_sequence);
        if sequence != last.next() {
            return Err(Broken::Gap { missing: last.next() });
        }
        *last = sequence;
        Ok((sequence, message))
    }

    /// Starts to append a message to the copy. The messages of a batch are appended together with the last of
    /// them.
    fn apply(
        &self,
        (sequence, message): (Sequence, jetstream::Message),
        batch: &mut Vec<Append>,
    ) -> Option<impl Future<Output = Applied> + use<>> {
        match Message::decode(&message.payload) {
            Ok(content) => {
                let complete = content.part == content.parts;
                batch.extend(content.into_appends());
                if !complete {
                    return None;
                }
            }
            Err(error) => {
                tracing::error!(
                    error = %Chain(&error),
                    sequence = sequence.get(),
                    "a message of the log's stream was not written by Kontor; it is left out"
                );
                batch.clear();
            }
        }
        let publisher = PublishId::read(message.headers.as_ref());
        let applying = self.copy.apply(sequence, std::mem::take(batch));
        Some(async move { Applied { sequence, publisher, outcome: applying.await } })
    }

    /// Reports the outcome of a message to its publisher. Fails if the copy itself has failed.
    fn resolve(&self, Applied { sequence, publisher, outcome }: Applied) -> Result<(), AppendError> {
        match &outcome {
            Ok(_) => {}
            Err(error @ (AppendError::Conflict { .. } | AppendError::Duplicate { .. })) => {
                // Every copy refuses it in the same way.
                tracing::error!(
                    error = %Chain(error),
                    sequence = sequence.get(),
                    "a message of the log's stream conflicts with earlier ones; it is left out"
                );
            }
            Err(error) => return Err(error.clone()),
        }
        self.pending.resolve(sequence, publisher, outcome);
        Ok(())
    }
}

/// Converts an error of the NATS client.
fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> Broken {
    Broken::Nats(error.into())
}
