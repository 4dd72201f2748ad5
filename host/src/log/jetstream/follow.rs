//! Keeps the local copy up with the stream.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::push::OrderedConfig};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Sequence;
use super::pending_appends::Landings;
use super::wire::{Message, PublishId};
use crate::log::embedded::LocalCopy;
use crate::log::{Append, AppendError, Appended};

/// Messages on their way into the copy at once: two of its largest groups, so that the next one is always ready.
const MAX_APPLYING: usize = 2_048;
/// The wait before following again when it was broken off.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a message that is known to be in the stream may not come before it is followed anew: the server that delivers
/// may be gone without the connection being so.
const STALLED: Duration = Duration::from_secs(1);
/// For one question to the servers. Without a leader nobody answers.
const ANSWERED: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    pub(super) client: Client,
    /// Of the stream.
    pub(super) name: String,
    pub(super) copy: Arc<LocalCopy>,
    pub(super) landings: Arc<Landings>,
}

/// Why following was broken off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the stream cannot be followed")]
    Nats(#[from] async_nats::Error),
    #[error("the server has ended the delivery")]
    Ended,
    #[error("messages that are in the stream do not come")]
    Stalled,
    #[error(
        "message {missing} of the stream is missing: it has been deleted or purged; restore the stream from a backup, or \
         begin with another"
    )]
    Gap { missing: Sequence },
    #[error(transparent)]
    Copy(#[from] AppendError),
}

/// A message on its way into the copy.
struct Applied {
    sequence: Sequence,
    publisher: Option<PublishId>,
    outcome: Result<Appended, AppendError>,
}

impl Follower {
    /// Until `stop` is closed.
    pub(super) async fn run(self, mut stop: watch::Receiver<()>) {
        loop {
            let broken = tokio::select! {
                biased;
                _ = stop.changed() => return,
                Err(broken) = self.follow() => broken,
            };
            tracing::warn!(
                error = crate::error::with_causes(&broken),
                stream = self.name,
                "the log's stream is not followed; trying again"
            );
            tokio::select! {
                biased;
                _ = stop.changed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Broken> {
        let mut last = *self.copy.sequence().borrow();
        let mut context = jetstream::new(self.client.clone());
        context.set_timeout(ANSWERED);
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
        let mut looked = last;
        let mut look = tokio::time::interval_at(Instant::now() + STALLED, STALLED);
        let broken = loop {
            tokio::select! {
                biased;
                Some(applied) = applying.next(), if !applying.is_empty() => {
                    if let Err(error) = self.land(applied) {
                        break error.into();
                    }
                }
                _ = look.tick() => {
                    if looked == last && last < self.landings.last_stored() {
                        break Broken::Stalled;
                    }
                    looked = last;
                }
                message = messages.next(), if applying.len() < MAX_APPLYING => {
                    match self.next(message, &mut last) {
                        Ok(message) => applying.extend(self.take_in(message, &mut batch)),
                        Err(broken) => break broken,
                    }
                }
            }
        };
        // Whoever follows again begins behind what is on its way.
        while let Some(applied) = applying.next().await {
            self.land(applied)?;
        }
        Err(broken)
    }

    /// The next message, without a gap before it.
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

    /// Starts to add a message to the copy; one of several of a batch with the last of them.
    fn take_in(
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
                    %error,
                    sequence = sequence.get(),
                    "a message of the log's stream is not of Kontor; it is left out"
                );
                batch.clear();
            }
        }
        let publisher = PublishId::read(message.headers.as_ref());
        let applying = self.copy.apply(sequence, std::mem::take(batch));
        Some(async move { Applied { sequence, publisher, outcome: applying.await } })
    }

    /// Tells the publisher. An error is one of the copy itself.
    fn land(&self, Applied { sequence, publisher, outcome }: Applied) -> Result<(), AppendError> {
        match &outcome {
            Ok(_) => {}
            Err(error @ (AppendError::Conflict { .. } | AppendError::Duplicate { .. })) => {
                // Every copy refuses it alike.
                tracing::error!(
                    %error,
                    sequence = sequence.get(),
                    "a message of the log's stream does not fit; it is left out"
                );
            }
            Err(error) => return Err(error.clone()),
        }
        self.landings.land(sequence, publisher, outcome);
        Ok(())
    }
}

fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> Broken {
    Broken::Nats(error.into())
}
