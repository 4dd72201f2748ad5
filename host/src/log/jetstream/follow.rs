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
use super::wire::{self, DecodeError, Message, PublishId};
use crate::clock::deadline_after;
use crate::error::Chain;
use crate::log::embedded::{CopiedMessage, LocalCopy, Unit};
use crate::log::{Append, AppendError, EventLog as _, Outcome};
use crate::model::{LogMark, Position};

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
    /// Receives the reason when this host does not follow the stream any more.
    pub(super) stopped: watch::Sender<Option<Arc<str>>>,
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
    /// To continue would leave a message out, and this host would have another log than the others.
    #[error("message {sequence} of the log's stream cannot be applied")]
    Stop { sequence: Sequence, source: StopReason },
}

/// The reasons why a host does not follow the stream any more, until an operator has looked at it.
#[derive(Debug, thiserror::Error)]
enum StopReason {
    #[error(transparent)]
    Message(#[from] DecodeError),
    /// The publisher's copy and this one differ.
    #[error(
        "the host that published it has another event at position {position} than this one: `kontor verify` \
         shows if a copy is damaged; a host with such a copy starts with an empty data directory, which gets \
         a new one"
    )]
    Different { position: Position },
}

/// The appends of a batch that have arrived. Older versions of Kontor divided it among several messages.
struct Batch {
    /// The last message before the batch.
    after: Sequence,
    appends: Vec<Append>,
}

/// A message that the copy has processed.
struct Applied {
    sequence: Sequence,
    publisher: Option<PublishId>,
    /// The newest event in the publisher's copy.
    mark: Option<LogMark>,
    outcomes: Result<Vec<Outcome>, AppendError>,
}

impl Follower {
    /// Follows the stream until `stop` is closed, again after each error that may pass.
    pub(super) async fn run(self, mut stop: watch::Receiver<()>) {
        loop {
            let broken = tokio::select! {
                biased;
                _ = stop.changed() => return,
                Err(broken) = self.follow() => broken,
            };
            if let Broken::Stop { .. } = &broken {
                let reason = Chain(&broken).to_string();
                tracing::error!(
                    error = reason,
                    stream = self.name,
                    "this host does not follow the log any more; it takes no commands until it is restarted"
                );
                self.stopped.send_replace(Some(reason.into()));
                self.pending.abandon(&AppendError::Failed(Arc::new(broken)));
                return;
            }
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
        let mut batch = Batch { after: last, appends: Vec::new() };
        let mut last_at_check = last;
        let mut checks = tokio::time::interval_at(deadline_after(STALLED), STALLED);
        let mut broken = loop {
            tokio::select! {
                biased;
                Some(applied) = applying.next(), if !applying.is_empty() => {
                    if let Err(broken) = self.resolve(applied).await {
                        break broken;
                    }
                }
                _ = checks.tick() => {
                    if last_at_check == last && last < self.pending.last_stored() {
                        break Broken::Stalled;
                    }
                    last_at_check = last;
                }
                message = messages.next(), if applying.len() < MAX_APPLYING => {
                    let next = self.next(message, &mut last);
                    match next.and_then(|message| self.apply(message, &mut batch)) {
                        Ok(started) => applying.extend(started),
                        Err(broken) => break broken,
                    }
                }
            }
        };
        // The next attempt starts behind the messages that are being copied, once all have an outcome. A host
        // that stops acknowledges nothing more.
        while let Some(applied) = applying.next().await {
            if !matches!(broken, Broken::Stop { .. })
                && let Err(error) = self.resolve(applied).await
            {
                broken = error;
            }
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
        batch: &mut Batch,
    ) -> Result<Option<impl Future<Output = Applied> + use<>>, Broken> {
        let content = Message::decode(&message.payload)
            .map_err(|error| Broken::Stop { sequence, source: error.into() })?;
        let units = match content {
            Message::Units(units) => units,
            Message::PerStream(part) => {
                let is_last = part.is_last();
                batch.appends.extend(part.into_appends());
                if !is_last {
                    return Ok(None);
                }
                vec![Unit::of(std::mem::take(&mut batch.appends))]
            }
        };
        let publisher = PublishId::read(message.headers.as_ref());
        let mark = wire::read_mark(message.headers.as_ref());
        let process = publisher.map(|publisher| publisher.process);
        let applying = self.copy.apply(CopiedMessage { after: batch.after, last: sequence, process, units });
        batch.after = sequence;
        Ok(Some(async move { Applied { sequence, publisher, mark, outcomes: applying.await } }))
    }

    /// Reports the outcomes of a message to its publisher. Fails if the copy itself has failed, or is not the
    /// same as the publisher's.
    async fn resolve(&self, applied: Applied) -> Result<(), Broken> {
        let Applied { sequence, publisher, mark, outcomes } = applied;
        let outcomes = outcomes?;
        let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        for error in refused {
            tracing::debug!(
                error = %Chain(error),
                sequence = sequence.get(),
                "an append in a message of the log's stream is refused; every host leaves it out"
            );
        }
        if !publisher.is_some_and(|id| self.pending.is_own(id))
            && let Some(mark) = mark
        {
            self.compare(sequence, mark).await?;
        }
        self.pending.resolve(sequence, publisher, outcomes);
        Ok(())
    }

    /// Fails if the copy does not have the newest event of the publisher of a message.
    async fn compare(&self, sequence: Sequence, mark: LogMark) -> Result<(), Broken> {
        let contains = self.copy.log().contains(mark).await;
        match contains.map_err(|error| AppendError::Failed(error.0))? {
            true => Ok(()),
            false => {
                let source = StopReason::Different { position: mark.position };
                Err(Broken::Stop { sequence, source })
            }
        }
    }
}

/// Converts an error of the NATS client.
fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> Broken {
    Broken::Nats(error.into())
}
