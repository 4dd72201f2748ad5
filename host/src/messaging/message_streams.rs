//! The streams in which the host keeps messages until they are commands, one for each service: a service that
//! leaves its messages fills its own. Each subscription has a durable consumer there, shared by all hosts.
//!
//! A stream keeps a message for as long as a consumer wants it. So the consumer of a subscription that no
//! deployed version has any more must go, but not at once: the version may be rolled back, and must find its
//! messages. The servers remove such a consumer when it was not used for some time, and the host only says
//! which ones are meant. A consumer that is wanted stays, however long all hosts are down.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{FromConsumer as _, Info, PullConsumer, pull};
use async_nats::jetstream::context::{DeleteStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, ConsumerErrorKind, DiscardPolicy, RetentionPolicy, Stream};
use futures::TryStreamExt as _;

use super::streams::{NoStream, Streams};
use crate::contract::subjects::covers;
use crate::model::ServiceName;

/// The stream of the messages of all services, which earlier versions had. With a hyphen and the service
/// behind it, the name of a stream of today.
pub(super) const SHARED: &str = "kontor-messages";
/// The largest size of the stream of one service: the servers' largest message 64 times, or 100,000 usual
/// ones. Servers reserve all of it.
const BYTES: i64 = 64 << 20;
/// The beginning of the names of the host's consumers.
pub(super) const CONSUMER: &str = "kontor-";

fn name_of(service: &ServiceName) -> String {
    format!("{SHARED}-{service}")
}

/// Returns whether the stream is one of messages that this version creates.
fn is_of_service(stream: &str) -> bool {
    stream.strip_prefix(SHARED).is_some_and(|rest| rest.starts_with('-'))
}

impl Streams {
    /// Ensures that a stream has each of the subjects that a service subscribes to: an existing stream, or
    /// the service's own. The latter keeps a message until all consumers of its subject have it; they must
    /// exist first. When it is full, it takes no more, and publishers get an error. Two streams cannot share
    /// a message, so services with the same subjects share the stream of one of them.
    pub(super) async fn taken(&self, service: &ServiceName, subjects: &[&str]) -> Result<(), NoStream> {
        let (retention, discard) = (RetentionPolicy::Interest, DiscardPolicy::New);
        let config = Config { retention, discard, max_bytes: BYTES, ..Config::default() };
        self.cover(subjects, &name_of(service), config, is_of_service).await
    }

    /// Takes the subjects from the stream of all services, so that each service gets a stream of its own, and
    /// removes it when it is empty. Its consumers take what it still has.
    pub(super) async fn retire_shared(&self) -> Result<(), NoStream> {
        let stream = match self.context.get_stream(SHARED).await {
            Ok(stream) => stream,
            Err(error) if is_missing(error.kind()) => return Ok(()),
            Err(error) => return Err(NoStream::Look(SHARED.to_owned(), error)),
        };
        let info = stream.cached_info();
        // A stream must have a subject. Nobody publishes on this one.
        if info.config.subjects != [SHARED] {
            let config = Config { subjects: vec![SHARED.to_owned()], ..info.config.clone() };
            let updated = self.context.update_stream(config).await;
            let failed = |source| NoStream::Add { stream: SHARED.to_owned(), source };
            updated.map(drop).map_err(failed)
        } else if info.state.messages == 0 {
            self.remove(SHARED).await
        } else {
            Ok(())
        }
    }

    /// Returns a consumer on the stream of all services, if there still is one.
    pub(super) async fn shared_consumer(&self, name: &str) -> Result<Option<PullConsumer>, NoStream> {
        match self.context.get_consumer_from_stream(name, SHARED).await {
            Ok(consumer) => Ok(Some(consumer)),
            Err(error) => match error.kind() {
                ConsumerErrorKind::JetStream(cause)
                    if matches!(
                        cause.error_code(),
                        ErrorCode::CONSUMER_NOT_FOUND | ErrorCode::STREAM_NOT_FOUND
                    ) =>
                {
                    Ok(None)
                }
                _ => Err(NoStream::Consumer(name.to_owned(), error)),
            },
        }
    }

    /// Lets the servers remove the consumers that are not wanted when they were not used for `limit`, and
    /// keep the others. Removes the streams of services that have neither a consumer nor a wanted subject.
    pub(super) async fn tend(
        &self,
        wanted: &HashSet<String>,
        subjects: &[&str],
        limit: Duration,
    ) -> Result<(), NoStream> {
        let names: Vec<String> = self.context.stream_names().try_collect().await.map_err(list_error)?;
        for name in names.iter().filter(|name| is_of_service(name) || *name == SHARED) {
            let stream = self.look(name).await?;
            let consumers: Vec<Info> = stream.consumers().try_collect().await.map_err(list_error)?;
            for info in consumers.iter().filter(|info| info.name.starts_with(CONSUMER)) {
                let limit = if wanted.contains(&info.name) { Duration::ZERO } else { limit };
                if info.config.inactive_threshold != limit {
                    set_limit(&stream, info, limit).await?;
                }
            }
            let own = &stream.cached_info().config.subjects;
            let is_wanted = subjects.iter().any(|subject| own.iter().any(|own| covers(own, subject)));
            if consumers.is_empty() && !is_wanted && is_of_service(name) {
                self.remove(name).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, stream: &str) -> Result<(), NoStream> {
        match self.context.delete_stream(stream).await {
            Ok(_) => {
                tracing::info!(stream, "removed a stream of messages that nobody needs any more");
                Ok(())
            }
            // Another host was faster.
            Err(error) if is_deleted(&error.kind()) => Ok(()),
            Err(error) => Err(NoStream::Remove(stream.to_owned(), error)),
        }
    }
}

/// Sets the time without use after which the servers remove a consumer; zero: never.
async fn set_limit(stream: &Stream, info: &Info, limit: Duration) -> Result<(), NoStream> {
    let failed = |error| NoStream::Consumer(info.name.clone(), error);
    let (consumer, waiting) = (&info.name, info.num_pending + info.num_ack_pending as u64);
    // Err: it is no pull consumer, so it is none of the host's.
    let Ok(config) = pull::Config::try_from_consumer_config(info.config.clone()) else { return Ok(()) };
    let config = pull::Config { inactive_threshold: limit, ..config };
    let changed = stream.create_consumer(config).await;
    if changed.is_err() && stream.cached_info().config.name == SHARED && !limit.is_zero() {
        // The stream has no subjects any more, so its consumers cannot be changed.
        stream.delete_consumer(consumer).await.map_err(failed)?;
    } else {
        changed.map_err(failed)?;
    }
    if !limit.is_zero() {
        let hours = limit.as_secs_f64() / 3600.0;
        tracing::warn!(
            consumer,
            waiting,
            hours,
            "no service subscribes to these messages; they go after some time"
        );
    }
    Ok(())
}

fn list_error(error: impl Into<async_nats::Error>) -> NoStream {
    NoStream::List(error.into())
}

fn is_missing(kind: GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn is_deleted(kind: &DeleteStreamErrorKind) -> bool {
    let not_found = ErrorCode::STREAM_NOT_FOUND;
    matches!(kind, DeleteStreamErrorKind::JetStream(error) if error.error_code() == not_found)
}
