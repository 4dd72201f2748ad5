//! The streams that the host creates. It never changes the configuration of an existing stream, except that
//! it adds subjects; those of messages are in `message_streams.rs`.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{
    CreateStreamError, DeleteStreamError, GetStreamByNameError, GetStreamByNameErrorKind, GetStreamError,
    UpdateStreamError,
};
use async_nats::jetstream::stream::{
    Config, ConsumerError, DiscardPolicy, PersistenceMode, StorageType, Stream,
};

use super::{cloud_event, dead_letters};
use crate::contract::subjects::{covers, widest};

/// The stream of all events.
pub(super) const EVENTS: &str = "kontor-events";
/// The stream of messages that could not become commands.
const DEAD_LETTERS: &str = "kontor-dead-letters";
/// The stream of the messages that services publish, on subjects that no other stream has.
const PUBLICATIONS: &str = "kontor-publications";
/// The largest size of a stream: about half a million events. Servers reserve all of it, and may have little
/// space.
const BYTES: i64 = 256 << 20;
/// The time that publications are kept: longer than a consumer is usually down.
const PUBLICATIONS_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The reason why a stream is not available.
#[derive(Debug, thiserror::Error)]
pub enum NoStream {
    /// A stream cannot be created.
    #[error("the stream {0} cannot be created")]
    Make(String, #[source] CreateStreamError),
    /// The lookup of a subject's stream failed.
    #[error("the stream of the subject {0} cannot be looked up")]
    Find(String, #[source] GetStreamByNameError),
    /// A subject has no stream.
    #[error("no stream has the subject {0}")]
    None(String),
    /// A stream has some of the messages, so that no other one can have them all.
    #[error(
        "the stream {stream} has only some messages of the subject {subject}: give it the whole subject, or \
         remove its own, {own}"
    )]
    Overlaps {
        /// The subject.
        subject: String,
        /// The name of the stream.
        stream: String,
        /// The subjects of the stream.
        own: String,
    },
    /// Subjects cannot be added to a stream.
    #[error("subjects cannot be added to the stream {stream}")]
    Add {
        /// The name of the stream.
        stream: String,
        /// The cause.
        source: UpdateStreamError,
    },
    /// A stream cannot be read.
    #[error("the stream {0} cannot be read")]
    Look(String, #[source] GetStreamError),
    /// The streams cannot be listed.
    #[error("the streams and their consumers cannot be listed")]
    List(#[source] async_nats::Error),
    /// A consumer cannot be read or changed.
    #[error("the consumer {0} cannot be read or changed")]
    Consumer(String, #[source] ConsumerError),
    /// A stream that is no longer needed cannot be removed.
    #[error("the stream {0} cannot be removed")]
    Remove(String, #[source] DeleteStreamError),
}

/// The servers' streams.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) context: Context,
    /// The number of servers that keep each stream that the host creates.
    pub(super) replicas: usize,
}

impl Streams {
    /// Returns the stream of events, and creates it if need be. When it is full, the oldest events are
    /// dropped. There is no limit of age, because that would drop the last event too, which records the
    /// progress. One server need not sync each event before it acknowledges it: events that it loses in a
    /// power cut are published again from the log, in the same places.
    pub(super) async fn events(&self) -> Result<Stream, NoStream> {
        let subjects = vec![cloud_event::SUBJECTS.to_owned()];
        let persist_mode = (self.replicas == 1).then_some(PersistenceMode::Async);
        let config = Config {
            subjects,
            discard: DiscardPolicy::Old,
            persist_mode,
            // One server makes a directory of each batch, which takes longer than the messages.
            allow_atomic_publish: self.replicas > 1,
            ..Config::default()
        };
        self.ensure(EVENTS, config).await
    }

    /// Returns the stream of dead letters, and creates it if need be. When it is full, it takes no more, and
    /// the messages stay in their own streams.
    pub(super) async fn dead_letters(&self) -> Result<Stream, NoStream> {
        let subjects = vec![dead_letters::SUBJECTS.to_owned()];
        self.ensure(DEAD_LETTERS, Config { subjects, discard: DiscardPolicy::New, ..Config::default() }).await
    }

    /// Ensures that a stream has each of the subjects that services publish on. When the host's own is full,
    /// the oldest messages are dropped.
    pub(super) async fn published(&self, subjects: &[&str]) -> Result<(), NoStream> {
        let (max_age, discard) = (PUBLICATIONS_AGE, DiscardPolicy::Old);
        let config = Config { max_age, discard, ..Config::default() };
        self.cover(subjects, PUBLICATIONS, config, |stream| stream == PUBLICATIONS).await
    }

    /// Adds all missing subjects at once, so that hosts that do so at the same time add the same ones. A
    /// subject that cannot be added does not keep the others out. `own`: the streams that may get wider
    /// subjects than they have.
    pub(super) async fn cover(
        &self,
        subjects: &[&str],
        stream: &str,
        config: Config,
        own: impl Fn(&str) -> bool,
    ) -> Result<(), NoStream> {
        let (mut missing, mut outcome) = (Vec::new(), Ok(()));
        for subject in subjects {
            match self.find(subject).await {
                Ok(Some(_)) => {}
                Ok(None) => missing.push((*subject).to_owned()),
                Err(NoStream::Overlaps { stream, .. }) if own(&stream) => {
                    let stream = self.look(&stream).await?;
                    outcome = outcome.and(self.add(&stream, vec![(*subject).to_owned()]).await);
                }
                Err(error @ NoStream::Overlaps { .. }) => outcome = outcome.and(Err(error)),
                Err(error) => return Err(error),
            }
        }
        if !missing.is_empty() {
            let missing = widest(missing);
            let stream = self.ensure(stream, Config { subjects: missing.clone(), ..config }).await?;
            self.add(&stream, missing).await?;
        }
        outcome
    }

    async fn add(&self, stream: &Stream, mut subjects: Vec<String>) -> Result<(), NoStream> {
        let config = &stream.cached_info().config;
        subjects.extend(config.subjects.iter().cloned());
        let subjects = widest(subjects);
        if subjects == widest(config.subjects.clone()) {
            return Ok(());
        }
        let config = Config { subjects, ..config.clone() };
        let stream = config.name.clone();
        let updated = self.context.update_stream(config).await;
        updated.map(drop).map_err(|source| NoStream::Add { stream, source })
    }

    /// Returns the name of the stream that has all messages of a subject. Fails if a stream has some of them:
    /// the servers look up every stream that has any.
    pub(super) async fn find(&self, subject: &str) -> Result<Option<String>, NoStream> {
        let stream = match self.context.stream_by_subject(subject).await {
            Ok(name) => self.look(&name).await?,
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(NoStream::Find(subject.to_owned(), error)),
        };
        let Config { name, subjects, .. } = &stream.cached_info().config;
        match subjects.iter().any(|own| covers(own, subject)) {
            true => Ok(Some(name.clone())),
            false => Err(NoStream::Overlaps {
                subject: subject.to_owned(),
                stream: name.clone(),
                own: subjects.join(", "),
            }),
        }
    }

    /// Returns the most bytes of a message, headers included, that a stream takes.
    pub(super) fn largest(&self, stream: &Stream) -> usize {
        let largest = self.context.client().max_payload();
        match usize::try_from(stream.cached_info().config.max_message_size) {
            Ok(own) if own > 0 => own.min(largest),
            // -1 or 0: the stream has no limit of its own.
            _ => largest,
        }
    }

    pub(super) async fn look(&self, name: &str) -> Result<Stream, NoStream> {
        self.context.get_stream(name).await.map_err(|error| NoStream::Look(name.to_owned(), error))
    }

    async fn ensure(&self, name: &str, config: Config) -> Result<Stream, NoStream> {
        let config = Config {
            name: name.to_owned(),
            max_bytes: if config.max_bytes > 0 { config.max_bytes } else { BYTES },
            storage: StorageType::File,
            num_replicas: self.replicas,
            ..config
        };
        let made = self.context.get_or_create_stream(config).await;
        made.map_err(|error| NoStream::Make(name.to_owned(), error))
    }
}
