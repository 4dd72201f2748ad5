//! The streams that the host creates. It never changes the configuration of an existing stream, except that
//! it adds subjects.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{
    CreateStreamError, GetStreamByNameError, GetStreamByNameErrorKind, UpdateStreamError,
};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};

use super::{cloud_event, dead_letters};

/// The stream of all events.
pub(super) const EVENTS: &str = "kontor-events";
/// The stream of messages that could not become commands.
const DEAD_LETTERS: &str = "kontor-dead-letters";
/// The stream of the messages that services subscribe to, on subjects that no other stream has.
const MESSAGES: &str = "kontor-messages";
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
    Make(&'static str, #[source] CreateStreamError),
    /// The lookup of a subject's stream failed.
    #[error("the stream of the subject {0} cannot be looked up")]
    Find(String, #[source] GetStreamByNameError),
    /// A subject has no stream.
    #[error("no stream has the subject {0}")]
    None(String),
    /// Subjects cannot be added to a stream.
    #[error("subjects cannot be added to the stream {stream}")]
    Add {
        /// The name of the stream.
        stream: &'static str,
        /// The cause.
        source: UpdateStreamError,
    },
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
    /// progress.
    pub(super) async fn events(&self) -> Result<Stream, NoStream> {
        let subjects = vec![cloud_event::SUBJECTS.to_owned()];
        self.ensure(EVENTS, Config { subjects, discard: DiscardPolicy::Old, ..Config::default() }).await
    }

    /// Returns the stream of dead letters, and creates it if need be. When it is full, it takes no more, and
    /// the messages stay in their own streams.
    pub(super) async fn dead_letters(&self) -> Result<Stream, NoStream> {
        let subjects = vec![dead_letters::SUBJECTS.to_owned()];
        self.ensure(DEAD_LETTERS, Config { subjects, discard: DiscardPolicy::New, ..Config::default() }).await
    }

    /// Ensures that a stream has each of the subjects that services subscribe to, either an existing stream
    /// or the host's own. The latter keeps a message until all consumers of its subject have it; they must
    /// exist first. When it is full, it takes no more, and publishers get an error.
    pub(super) async fn taken(&self, subjects: &[&str]) -> Result<(), NoStream> {
        let (retention, discard) = (RetentionPolicy::Interest, DiscardPolicy::New);
        self.cover(subjects, MESSAGES, Config { retention, discard, ..Config::default() }).await
    }

    /// Ensures that a stream has each of the subjects that services publish on. When the host's own is full,
    /// the oldest messages are dropped.
    pub(super) async fn published(&self, subjects: &[&str]) -> Result<(), NoStream> {
        let (max_age, discard) = (PUBLICATIONS_AGE, DiscardPolicy::Old);
        self.cover(subjects, PUBLICATIONS, Config { max_age, discard, ..Config::default() }).await
    }

    /// Adds all missing subjects at once, so that hosts that do so at the same time add the same ones.
    async fn cover(&self, subjects: &[&str], stream: &'static str, config: Config) -> Result<(), NoStream> {
        let mut missing = Vec::new();
        for subject in subjects {
            if self.find(subject).await?.is_none() {
                missing.push((*subject).to_owned());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let config = Config { subjects: missing.clone(), ..config };
        let mut config = self.ensure(stream, config).await?.cached_info().config.clone();
        missing.retain(|subject| !config.subjects.contains(subject));
        if !missing.is_empty() {
            config.subjects.extend(missing);
            self.context.update_stream(config).await.map_err(|source| NoStream::Add { stream, source })?;
        }
        Ok(())
    }

    /// Returns the name of the stream that has a subject.
    pub(super) async fn find(&self, subject: &str) -> Result<Option<String>, NoStream> {
        match self.context.stream_by_subject(subject).await {
            Ok(name) => Ok(Some(name)),
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(None),
            Err(error) => Err(NoStream::Find(subject.to_owned(), error)),
        }
    }

    async fn ensure(&self, name: &'static str, config: Config) -> Result<Stream, NoStream> {
        let config = Config {
            name: name.to_owned(),
            max_bytes: BYTES,
            storage: StorageType::File,
            num_replicas: self.replicas,
            ..config
        };
        self.context.get_or_create_stream(config).await.map_err(|error| NoStream::Make(name, error))
    }
}
