//! Whether the server and the stream are such that what is acknowledged is kept.

use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, ErrorCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::{Sequence, wire};
use crate::error::with_causes;

/// Older servers have lost acknowledged messages, or know no atomic batches.
const OLDEST_SERVER: [u64; 3] = [2, 14, 4];
/// The least that a message may hold. A request's body is a megabyte at most, by default.
const LEAST_PAYLOAD: usize = 1 << 20;
/// How long a host that starts waits for servers that start as well, and elect a leader first.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one attempt waits for an answer: servers without a leader give none.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// For one question about the server's settings.
const MONITORING_TIME: Duration = Duration::from_secs(5);

/// The log's stream, and what is accepted of it. `[jetstream]` in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JetStreamOptions {
    /// The name of the stream, and the first token of its subjects.
    pub stream: String,
    /// When a server has what it acknowledges on disk.
    pub sync: SyncPolicy,
    /// Where the servers tell about themselves, to check `sync`: `http://host:8222`, one for each server.
    pub monitoring: Vec<String>,
    /// How long another host may not be heard before its sagas are taken over. A host has stopped after half of it.
    pub silence_ms: u64,
}

/// The servers' `sync_interval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncPolicy {
    /// Before it acknowledges it.
    #[default]
    Always,
    /// Now and then. What was acknowledged since is lost if all servers lose their power at once.
    Interval,
}

impl Default for JetStreamOptions {
    fn default() -> Self {
        Self {
            stream: "kontor-log".to_owned(),
            sync: SyncPolicy::default(),
            monitoring: Vec::new(),
            // Five beats. A host on a busy machine is not late by as much.
            silence_ms: 5_000,
        }
    }
}

/// Why a stream cannot be the log. Says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("no NATS server answers, and the log is there: start one, or see whether `nats.url` is right")]
    NoServer,
    #[error("the NATS server does version {found}; the log needs {}.{}.{} or newer", OLDEST_SERVER[0], OLDEST_SERVER[1], OLDEST_SERVER[2])]
    OldServer { found: String },
    #[error(
        "the NATS server takes messages of {found} bytes; the log needs {LEAST_PAYLOAD}: raise its `max_payload`"
    )]
    SmallPayload { found: usize },
    #[error(
        "the stream {stream} cannot be made or looked at; is JetStream enabled, with {replicas} servers or more?"
    )]
    Stream { stream: String, replicas: usize, source: async_nats::Error },
    #[error("the stream {stream} is not safe as a log: {}", problems.join("; "))]
    Unsafe { stream: String, problems: Vec<String> },
    #[error(
        "nobody can tell whether the NATS servers write to disk what they acknowledge: name their monitoring addresses in \
         `jetstream.monitoring`, or accept that they may not with `jetstream.sync = \"interval\"`"
    )]
    SyncUnknown,
    #[error(
        "the NATS server at {url} does not write to disk what it acknowledges: set `sync_interval: always` in the `jetstream` \
         block of its configuration, or accept it with `jetstream.sync = \"interval\"`"
    )]
    LazySync { url: String },
    #[error("the NATS server at {url} does not tell about itself: {reason}")]
    Monitoring { url: String, reason: String },
    #[error(
        "the stream {stream} ends at message {stream_ends}, but the copy in the data directory has {copy_ends}: the stream has lost \
         messages, perhaps it was restored from an older backup; if that is as it should be, begin with an empty data directory"
    )]
    Shortened { stream: String, stream_ends: Sequence, copy_ends: Sequence },
}

/// Makes the stream if there is none, and checks that it is safe.
pub(super) async fn prepare(
    client: &Client,
    options: &JetStreamOptions,
    replicas: usize,
) -> Result<Info, SetupError> {
    connected(client).await?;
    let server = client.server_info();
    if version(&server.version) < Some(OLDEST_SERVER) {
        return Err(SetupError::OldServer { found: server.version });
    }
    if server.max_payload < LEAST_PAYLOAD {
        return Err(SetupError::SmallPayload { found: server.max_payload });
    }
    check_sync(options).await?;
    let wanted = wanted(options, replicas);
    let failed =
        |source: async_nats::Error| SetupError::Stream { stream: options.stream.clone(), replicas, source };
    let mut stream = make(client, &wanted).await.map_err(|error| failed(error.into()))?;
    let info = stream.info().await.map_err(|error| failed(error.into()))?;
    let problems = problems(&info.config, &wanted);
    if !problems.is_empty() {
        return Err(SetupError::Unsafe { stream: options.stream.clone(), problems });
    }
    Ok(info.clone())
}

async fn connected(client: &Client) -> Result<(), SetupError> {
    let give_up = Instant::now() + PATIENCE;
    while client.connection_state() != State::Connected {
        if Instant::now() >= give_up {
            return Err(SetupError::NoServer);
        }
        tracing::info!("waiting for the NATS servers");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Makes the stream if there is none, as soon as the servers can.
async fn make(client: &Client, wanted: &Config) -> Result<Stream, CreateStreamError> {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(ATTEMPT);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let error = match context.get_or_create_stream(wanted.clone()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let passes = match error.kind() {
            CreateStreamErrorKind::TimedOut | CreateStreamErrorKind::JetStreamUnavailable => true,
            // There is no leader, or the leader does not know the other servers yet.
            CreateStreamErrorKind::JetStream(error) => {
                error.code() == 503 || error.error_code() == ErrorCode::CLUSTER_NO_PEERS
            }
            _ => false,
        };
        if !passes || Instant::now() >= give_up {
            return Err(error);
        }
        tracing::info!(error = with_causes(&error), "waiting for JetStream");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tells one stream from another of the same name.
pub(super) fn identity(info: &Info) -> String {
    format!("JetStream {}, made {}", info.config.name, info.created)
}

fn wanted(options: &JetStreamOptions, replicas: usize) -> Config {
    Config {
        name: options.stream.clone(),
        subjects: vec![wire::subjects(&options.stream)],
        description: Some("The event log of Kontor. Written by its hosts alone.".to_owned()),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        allow_direct: true,
        allow_atomic_publish: true,
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    }
}

/// What may cost events, a sentence each.
fn problems(found: &Config, wanted: &Config) -> Vec<String> {
    let limit = |set: bool, name: &str| (set, format!("it has `{name}`, which throws events away"));
    let table = [
        (
            found.num_replicas != wanted.num_replicas,
            format!("it has {} replicas, and `nats.replicas` is {}", found.num_replicas, wanted.num_replicas),
        ),
        (found.subjects != wanted.subjects, format!("its subjects are not {:?}", wanted.subjects)),
        (found.storage != StorageType::File, "it is kept in memory".to_owned()),
        (!found.deny_delete, "messages can be deleted (`deny_delete` is not set)".to_owned()),
        (!found.deny_purge, "it can be purged (`deny_purge` is not set)".to_owned()),
        (!found.allow_atomic_publish, "it takes no atomic batches (`allow_atomic` is not set)".to_owned()),
        (found.retention != RetentionPolicy::Limits, "its retention is not `limits`".to_owned()),
        (
            matches!(found.persist_mode, Some(PersistenceMode::Async)),
            "it acknowledges before it has written (`persist_mode` is `async`)".to_owned(),
        ),
        limit(!found.max_age.is_zero(), "max_age"),
        limit(found.max_messages_per_subject > 0, "max_msgs_per_subject"),
        limit(found.allow_message_ttl, "allow_msg_ttl"),
        limit(found.allow_rollup, "allow_rollup_hdrs"),
        limit(
            (found.max_bytes > 0 || found.max_messages > 0) && found.discard != DiscardPolicy::New,
            "discard: old",
        ),
        (found.mirror.is_some() || found.sources.is_some(), "it is a mirror of another stream".to_owned()),
        (found.sealed, "it is sealed".to_owned()),
    ];
    table.into_iter().filter(|(bad, _)| *bad).map(|(_, sentence)| sentence).collect()
}

#[derive(Deserialize)]
struct JetStreamStatus {
    config: JetStreamSettings,
}

#[derive(Deserialize)]
struct JetStreamSettings {
    #[serde(default)]
    sync_always: bool,
}

async fn check_sync(options: &JetStreamOptions) -> Result<(), SetupError> {
    if options.sync == SyncPolicy::Interval {
        return Ok(());
    }
    if options.monitoring.is_empty() {
        return Err(SetupError::SyncUnknown);
    }
    let mut silent = Vec::new();
    for url in &options.monitoring {
        match ask_status(url.clone()).await {
            Ok(status) if status.config.sync_always => {}
            Ok(_) => return Err(SetupError::LazySync { url: url.clone() }),
            Err(reason) => silent.push(SetupError::Monitoring { url: url.clone(), reason }),
        }
    }
    // A host must be able to start while a server is down, and the others acknowledge without it.
    let enough = silent.len() * 2 < options.monitoring.len();
    silent.iter().for_each(|silent| tracing::warn!("{silent}"));
    match silent.into_iter().next() {
        Some(error) if !enough => Err(error),
        _ => Ok(()),
    }
}

async fn ask_status(url: String) -> Result<JetStreamStatus, String> {
    let ask = move || {
        let url = format!("{}/jsz?config=1", url.trim_end_matches('/'));
        let get = ureq::get(url).config().timeout_global(Some(MONITORING_TIME)).build();
        let body = get.call().and_then(|mut response| response.body_mut().read_to_vec());
        let body = body.map_err(|error| with_causes(&error))?;
        serde_json::from_slice(&body).map_err(|error| with_causes(&error))
    };
    tokio::task::spawn_blocking(ask).await.map_err(|error| error.to_string())?
}

/// Reads `2.15.1` and `2.15.0-RC.1`.
fn version(text: &str) -> Option<[u64; 3]> {
    let mut numbers = text.split(['.', '-']).map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_cost_events_is_named() {
        let wanted = wanted(&JetStreamOptions::default(), 3);
        assert_eq!(problems(&wanted, &wanted), Vec::<String>::new());
        let unsafe_ones: [(Config, &str); 5] = [
            (Config { deny_delete: false, ..wanted.clone() }, "deny_delete"),
            (Config { deny_purge: false, ..wanted.clone() }, "deny_purge"),
            (Config { num_replicas: 1, ..wanted.clone() }, "1 replicas"),
            (Config { max_age: Duration::from_secs(60), ..wanted.clone() }, "max_age"),
            (Config { storage: StorageType::Memory, ..wanted.clone() }, "memory"),
        ];
        for (found, named) in unsafe_ones {
            let told = problems(&found, &wanted);
            assert!(told.len() == 1 && told[0].contains(named), "{named}: {told:?}");
        }
    }

    #[test]
    fn versions_are_numbers() {
        assert!(version("2.15.1") > Some(OLDEST_SERVER));
        assert!(version("2.14.4-RC.1") >= Some(OLDEST_SERVER));
        assert!(version("2.9.25") < Some(OLDEST_SERVER));
        assert!(version("new") < Some(OLDEST_SERVER));
    }
}
