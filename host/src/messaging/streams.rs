//! The streams that the host makes. It never changes what an operator has made of one, but for subjects that it adds.

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{
    CreateStreamError, GetStreamByNameError, GetStreamByNameErrorKind, UpdateStreamError,
};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};

use super::{cloud_event, dead_letters};

/// All events.
pub(super) const EVENTS: &str = "kontor-events";
/// Messages that could not become commands.
const DEAD_LETTERS: &str = "kontor-dead-letters";
/// Messages on the subjects of services that no other stream has.
const MESSAGES: &str = "kontor-messages";
/// The most that one of them keeps: two million events, say.
const BYTES: i64 = 1 << 30;
/// How long messages are kept: longer than anybody who should take them is away.
const MESSAGES_AGE: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 60 * 60);

/// Why there is no stream to use.
#[derive(Debug, thiserror::Error)]
pub enum NoStream {
    #[error("the stream {0} cannot be made")]
    Make(&'static str, #[source] CreateStreamError),
    #[error("it cannot be found out which stream has the subject {0}")]
    Find(String, #[source] GetStreamByNameError),
    #[error("the subject {0} cannot be added to the stream {MESSAGES}")]
    Add(String, #[source] UpdateStreamError),
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

    /// The name of the stream that has a subject: one that somebody has made, or that of the host. That takes no more when it
    /// is full, and tells so those who publish.
    pub(super) async fn with(&self, subject: &str) -> Result<String, NoStream> {
        match self.context.stream_by_subject(subject).await {
            Ok(name) => return Ok(name),
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => {}
            Err(error) => return Err(NoStream::Find(subject.to_owned(), error)),
        }
        let subjects = vec![subject.to_owned()];
        let config =
            Config { subjects, discard: DiscardPolicy::New, max_age: MESSAGES_AGE, ..Config::default() };
        let mut config = self.ensure(MESSAGES, config).await?.cached_info().config.clone();
        if !config.subjects.iter().any(|known| known == subject) {
            config.subjects.push(subject.to_owned());
            let added = self.context.update_stream(config).await;
            added.map_err(|error| NoStream::Add(subject.to_owned(), error))?;
        }
        Ok(MESSAGES.to_owned())
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
