//! Creates the stream, and checks that the server and the stream keep all acknowledged messages.

use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, ErrorCode};
use serde::Deserialize;

use super::{Sequence, wire};
use crate::clock::{Stopwatch, milliseconds};
use crate::error::Chain;

/// The oldest version of the server. Older ones have lost acknowledged messages.
const OLDEST_SERVER: [u64; 3] = [2, 14, 4];
/// The smallest `max_payload` in bytes: the default limit of a request's body.
pub(super) const LEAST_PAYLOAD: usize = 1 << 20;
/// The longest wait at the start of a host. Servers that start at the same time elect a leader first.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The key of a stream's metadata that marks it as one that is being imported.
const IMPORTING: &str = "kontor-importing";
/// The timeout of one request. Servers without a leader do not answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The wait between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// The timeout of one request for the server's settings.
const MONITORING_TIMEOUT: Duration = Duration::from_secs(5);

/// The stream of the log, and the settings that are accepted: the section `[jetstream]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JetStreamOptions {
    /// The name of the stream, and the first token of its subjects. Default: `kontor-log`.
    pub stream: String,
    /// The time at which the servers must have acknowledged events on disk. Default: `always`.
    pub sync: SyncPolicy,
    /// The monitoring address of each server, where `sync` is checked: `http://127.0.0.1:8222`. Required with
    /// `sync = "always"`.
    pub monitoring: Vec<String>,
    /// The heartbeat timeout: the time without a heartbeat after which the other members take over the sagas
    /// of a member. A member stops taking steps after half of it. The key `silence_ms` has it in
    /// milliseconds. Default: 5,000; minimum: 1,000.
    #[serde(rename = "silence_ms", deserialize_with = "milliseconds")]
    pub heartbeat_timeout: Duration,
}

/// The servers' `sync_interval`: the time at which acknowledged events are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncPolicy {
    /// `always`: a server syncs an event to disk before it acknowledges it.
    #[default]
    Always,
    /// Now and then. A power cut of all servers at once loses the events that were acknowledged since the
    /// last sync.
    Interval,
}

impl Default for JetStreamOptions {
    fn default() -> Self {
        Self {
            stream: "kontor-log".to_owned(),
            sync: SyncPolicy::default(),
            monitoring: Vec::new(),
            // Five heartbeats. A host on a busy machine is not late by as much.
            heartbeat_timeout: Duration::from_secs(5),
        }
    }
}

/// The reasons why a stream cannot be the log. Each message says how an operator can solve the problem.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No server answers.
    #[error("no NATS server answers, and the log is there: start one, or correct `nats.url`")]
    NoServer,
    /// The server is older than the oldest supported version.
    #[error(
        "the NATS server has version {found}; the log needs {}.{}.{} or newer",
        OLDEST_SERVER[0],
        OLDEST_SERVER[1],
        OLDEST_SERVER[2]
    )]
    OldServer {
        /// The version of the server.
        found: String,
    },
    /// The server accepts only small messages.
    #[error(
        "the NATS server accepts messages of {found} bytes, and the log needs {LEAST_PAYLOAD}: raise \
         its `max_payload`"
    )]
    SmallPayload {
        /// The server's `max_payload`.
        found: usize,
    },
    /// The server refuses to create the stream or to describe it.
    #[error(
        "the stream {stream} cannot be created or read; is JetStream enabled, with {replicas} servers or \
         more?"
    )]
    Stream {
        /// The name of the stream.
        stream: String,
        /// The wanted number of replicas.
        replicas: usize,
        /// The cause.
        source: async_nats::Error,
    },
    /// The stream exists, and its settings may lose events.
    #[error("the stream {stream} is not safe as a log: {}", problems.join("; "))]
    Unsafe {
        /// The name of the stream.
        stream: String,
        /// The unsafe settings, a sentence each.
        problems: Vec<String>,
    },
    /// The policy `always` cannot be checked, because no monitoring address is configured.
    #[error(
        "it is unknown whether the NATS servers sync messages to disk before they acknowledge them: set \
         their monitoring addresses in `jetstream.monitoring`, or accept later syncs with \
         `jetstream.sync = \"interval\"`"
    )]
    SyncUnknown,
    /// A server syncs only now and then, against the policy `always`.
    #[error(
        "the NATS server at {url} does not sync messages to disk before it acknowledges them: set \
         `sync_interval: always` in the `jetstream` block of its configuration, or accept later syncs with \
         `jetstream.sync = \"interval\"`"
    )]
    LazySync {
        /// The monitoring address of the server.
        url: String,
    },
    /// Too many servers do not give their settings.
    #[error("the NATS server does not give its settings at {url}")]
    Monitoring {
        /// The monitoring address of the server.
        url: String,
        /// The cause.
        source: MonitoringError,
    },
    /// The stream has fewer messages than the local copy.
    #[error(
        "the stream {stream} ends at message {stream_ends}, but the copy in the data directory has \
         {copy_ends}: the stream has lost messages, perhaps it was restored from an older backup; if that is \
         intended, start with an empty data directory"
    )]
    Shortened {
        /// The name of the stream.
        stream: String,
        /// The last message of the stream.
        stream_ends: Sequence,
        /// The last message in the copy.
        copy_ends: Sequence,
    },
}

/// Creates the stream if it does not exist, and checks that it is safe.
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
    let mut stream = create(client, &wanted).await.map_err(|error| failed(error.into()))?;
    let info = stream.info().await.map_err(|error| failed(error.into()))?;
    let problems = problems(&info.config, &wanted);
    if !problems.is_empty() {
        return Err(SetupError::Unsafe { stream: options.stream.clone(), problems });
    }
    Ok(info.clone())
}

/// Waits for the connection.
async fn connected(client: &Client) -> Result<(), SetupError> {
    let waited = Stopwatch::start();
    while client.connection_state() != State::Connected {
        if waited.elapsed() >= START_TIMEOUT {
            return Err(SetupError::NoServer);
        }
        tracing::info!("waiting for the NATS servers");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Creates the stream if it does not exist, as soon as the servers have a leader.
async fn create(client: &Client, wanted: &Config) -> Result<Stream, CreateStreamError> {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(REQUEST_TIMEOUT);
    let waited = Stopwatch::start();
    loop {
        let error = match context.get_or_create_stream(wanted.clone()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let is_transient = match error.kind() {
            CreateStreamErrorKind::TimedOut | CreateStreamErrorKind::JetStreamUnavailable => true,
            // There is no leader, or the leader does not know the other servers yet.
            CreateStreamErrorKind::JetStream(error) => {
                error.code() == 503 || error.error_code() == ErrorCode::CLUSTER_NO_PEERS
            }
            _ => false,
        };
        if !is_transient || waited.elapsed() >= START_TIMEOUT {
            return Err(error);
        }
        tracing::info!(error = %Chain(&error), "waiting for JetStream");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sets or removes the mark of a stream that is being imported.
pub(super) async fn mark_importing(
    client: &Client,
    name: &str,
    importing: bool,
) -> Result<(), async_nats::Error> {
    let context = jetstream::new(client.clone());
    let mut config = context.get_stream(name).await?.cached_info().config.clone();
    match importing {
        true => drop(config.metadata.insert(IMPORTING.to_owned(), String::new())),
        false => drop(config.metadata.remove(IMPORTING)),
    }
    context.update_stream(config).await?;
    Ok(())
}

/// Returns whether a stream has the mark of an import that is not complete.
pub(super) async fn is_importing(client: &Client, name: &str) -> Result<bool, async_nats::Error> {
    let stream = jetstream::new(client.clone()).get_stream(name).await?;
    Ok(stream.cached_info().config.metadata.contains_key(IMPORTING))
}

/// Returns a text that differs from that of a later stream of the same name.
pub(super) fn identity(info: &Info) -> String {
    format!("JetStream {}, made {}", info.config.name, info.created)
}

/// Returns the settings of a safe stream.
fn wanted(options: &JetStreamOptions, replicas: usize) -> Config {
    Config {
        name: options.stream.clone(),
        subjects: vec![wire::subjects(&options.stream)],
        description: Some("The event log of Kontor. Only its hosts write to it.".to_owned()),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        allow_direct: true,
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    }
}

/// Returns the settings that may lose events, a sentence each.
fn problems(found: &Config, wanted: &Config) -> Vec<String> {
    let limit = |set: bool, name: &str| (set, format!("it has `{name}`, which deletes events"));
    let table = [
        (
            found.num_replicas != wanted.num_replicas,
            format!("it has {} replicas, and `nats.replicas` is {}", found.num_replicas, wanted.num_replicas),
        ),
        (found.subjects != wanted.subjects, format!("its subjects are not {:?}", wanted.subjects)),
        (found.storage != StorageType::File, "it is kept in memory".to_owned()),
        (!found.deny_delete, "messages can be deleted (`deny_delete` is not set)".to_owned()),
        (!found.deny_purge, "it can be purged (`deny_purge` is not set)".to_owned()),
        (found.retention != RetentionPolicy::Limits, "its retention is not `limits`".to_owned()),
        (
            matches!(found.persist_mode, Some(PersistenceMode::Async)),
            "it acknowledges messages before they are written (`persist_mode` is `async`)".to_owned(),
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

/// The answer of a server's monitoring, `/jsz?config=1`.
#[derive(Deserialize)]
struct JetStreamStatus {
    config: JetStreamSettings,
}

#[derive(Deserialize)]
struct JetStreamSettings {
    #[serde(default)]
    sync_always: bool,
}

/// Checks that the servers sync messages as the options want it.
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
            Err(source) => silent.push(SetupError::Monitoring { url: url.clone(), source }),
        }
    }
    // A host must be able to start while a minority of the servers is down: the others acknowledge without
    // it.
    let enough = silent.len() * 2 < options.monitoring.len();
    for error in &silent {
        tracing::warn!(error = %Chain(error), "cannot check how a NATS server syncs messages to disk");
    }
    match silent.into_iter().next() {
        Some(error) if !enough => Err(error),
        _ => Ok(()),
    }
}

/// The reasons why a server does not give its settings.
#[derive(Debug, thiserror::Error)]
pub enum MonitoringError {
    /// The request failed.
    #[error("the request failed")]
    Http(#[from] Box<ureq::Error>),
    /// The answer is not the expected JSON.
    #[error("the answer cannot be parsed")]
    Json(#[from] serde_json::Error),
    /// The request was interrupted, because the host is shutting down.
    #[error("the request was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Asks a server for its settings.
async fn ask_status(url: String) -> Result<JetStreamStatus, MonitoringError> {
    let ask = move || {
        let url = format!("{}/jsz?config=1", url.trim_end_matches('/'));
        let get = ureq::get(url).config().timeout_global(Some(MONITORING_TIMEOUT)).build();
        let body = get.call().and_then(|mut response| response.body_mut().read_to_vec());
        Ok(serde_json::from_slice(&body.map_err(Box::new)?)?)
    };
    tokio::task::spawn_blocking(ask).await?
}

/// Parses a version such as `2.15.1` or `2.15.0-RC.1`.
fn version(text: &str) -> Option<[u64; 3]> {
    let mut numbers = text.split(['.', '-']).map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_may_lose_events_are_named() {
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
            let problems = problems(&found, &wanted);
            assert!(problems.len() == 1 && problems[0].contains(named), "{named}: {problems:?}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("2.15.1") > Some(OLDEST_SERVER));
        assert!(version("2.14.4-RC.1") >= Some(OLDEST_SERVER));
        assert!(version("2.9.25") < Some(OLDEST_SERVER));
        assert!(version("new") < Some(OLDEST_SERVER));
    }
}
