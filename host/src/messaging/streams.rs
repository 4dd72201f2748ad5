//! The streams that the host makes. It never changes what an operator has made of one, but for subjects that it adds.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{
    CreateStreamError, GetStreamByNameError, GetStreamByNameErrorKind, UpdateStreamError,
};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};

use super::{cloud_event, dead_letters};

/// All events.
pub(super) const EVENTS: &str = "kontor-events";
/// Messages that could not become commands.
const DEAD_LETTERS: &str = "kontor-dead-letters";
/// What services take, on subjects that no other stream has.
const MESSAGES: &str = "kontor-messages";
/// What services publish, on subjects that no other stream has.
const PUBLICATIONS: &str = "kontor-publications";
/// The most that one of them keeps: half a million events, say. Servers set all of it aside, and may have little.
const BYTES: i64 = 256 << 20;
/// How long publications are kept: longer than whoever wants them is away.
const PUBLICATIONS_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why there is no stream to use.
#[derive(Debug, thiserror::Error)]
pub enum NoStream {
    #[error("the stream {0} cannot be made")]
    Make(&'static str, #[source] CreateStreamError),
    #[error("it cannot be found out which stream has the subject {0}")]
    Find(String, #[source] GetStreamByNameError),
    #[error("no stream has the subject {0}")]
    None(String),
    #[error("the stream {stream} cannot be given more subjects")]
    Add { stream: &'static str, source: UpdateStreamError },
}

/// The servers' streams.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) context: Context,
    /// How many servers keep each stream that is made.
    pub(super) replicas: usize,
}

impl Streams {
    /// The oldest events go first. There is no limit of age, because that would remove the last event too, which says how far
    /// the stream is.
    pub(super) async fn events(&self) -> Result<Stream, NoStream> {
        let subjects = vec![cloud_event::SUBJECTS.to_owned()];
        self.ensure(EVENTS, Config { subjects, discard: DiscardPolicy::Old, ..Config::default() }).await
    }

    /// Takes no more when it is full: then the messages stay where they are.
    pub(super) async fn dead_letters(&self) -> Result<Stream, NoStream> {
        let subjects = vec![dead_letters::SUBJECTS.to_owned()];
        self.ensure(DEAD_LETTERS, Config { subjects, discard: DiscardPolicy::New, ..Config::default() }).await
    }

    /// Has a stream for each of the subjects that services take, one that somebody has made or the host's own. There a message
    /// stays until all consumers of its subject have it, which must be there first; when it is full, it takes no more, and tells
    /// so those who publish.
    pub(super) async fn taken(&self, subjects: &[&str]) -> Result<(), NoStream> {
        let (retention, discard) = (RetentionPolicy::Interest, DiscardPolicy::New);
        self.cover(subjects, MESSAGES, Config { retention, discard, ..Config::default() }).await
    }

    /// Has a stream for each of the subjects that services publish on. In the host's own the oldest go first.
    pub(super) async fn published(&self, subjects: &[&str]) -> Result<(), NoStream> {
        let (max_age, discard) = (PUBLICATIONS_AGE, DiscardPolicy::Old);
        self.cover(subjects, PUBLICATIONS, Config { max_age, discard, ..Config::default() }).await
    }

    /// All subjects that are missing are added at once: hosts that do so at the same time do the same.
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

    /// The name of the stream that has a subject.
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
