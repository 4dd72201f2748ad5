//! The errors of configurations.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{MIN_SILENCE, Missing};
use crate::cluster::UrlFileError;
use crate::contract::settings::nearest;
use crate::contract::{Places, SecretError};
use crate::error::with_causes;
use crate::identity::AuthOptionsError;
use crate::messaging::MessagingOptionsError;
use crate::runtime::{CALL_WAIT, GrantError};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not valid. The source names the line and the key.
    #[error("the configuration {} is not valid{}", .file.display(), meant(source.message()))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: Box<toml::de::Error>,
    },
    /// The source is about a key of the file.
    #[error("{place}")]
    At {
        /// The file, the line and the column.
        place: String,
        /// The error.
        source: Box<ConfigError>,
    },
    /// Other machines can reach the address, and something that protects the host is missing.
    #[error("listening on {address} is refused, because other machines can reach it; {missing}")]
    Unprotected {
        /// The address.
        address: SocketAddr,
        /// The sections to write.
        missing: Missing,
    },
    /// Names that nothing has, or values that do not fit.
    #[error("the configuration does not fit the services: {}", .0.join("; "))]
    Names(Vec<String>),
    /// The value of a service is no JSON.
    #[error("services.{service}.{key} is not JSON")]
    NotJson {
        /// The service.
        service: String,
        /// The key.
        key: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// A secret of a service cannot be read.
    #[error("the secret secrets.{service}.{key} cannot be read")]
    Secret {
        /// The service.
        service: String,
        /// The key.
        key: String,
        /// The cause.
        source: SecretError,
    },
    /// A key is in both sections of a service.
    #[error("{key} is in [services.{service}] and in [secrets.{service}]: leave one of them out")]
    Twice {
        /// The service.
        service: String,
        /// The key.
        key: String,
    },
    /// A limit that would let nothing through.
    #[error("limits.{0} must be at least 1")]
    ZeroLimit(&'static str),
    /// An HTTP request of a component may last for longer than its call.
    #[error("limits.http_time_ms must be below {}, the time of a whole call", CALL_WAIT.as_millis())]
    HttpTime,
    /// No time to fold the log.
    #[error("deploy.history_time_ms must be at least 1")]
    HistoryTime,
    /// A kind of step without an attempt.
    #[error("retries: {0} must allow at least 1 attempt")]
    NoAttempt(String),
    /// A certificate without its key, or a key without its certificate.
    #[error("nats.certificate and nats.key go together: one of them is missing")]
    HalfCertificate,
    /// The file with the address of the NATS servers.
    #[error("nats.url_file cannot be used")]
    NatsUrl(#[from] UrlFileError),
    /// A file or a secret that a key names.
    #[error("{key} cannot be used")]
    File {
        /// The key: `tls.certificate`.
        key: &'static str,
        /// The cause, which names the file.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The grants for HTTP, with their secret headers.
    #[error(transparent)]
    Grants(GrantError),
    /// Files and secrets that cannot be used.
    #[error("{}", .0.iter().map(|error| with_causes(error)).collect::<Vec<_>>().join("; "))]
    Files(Vec<ConfigError>),
    /// The section `[auth]`.
    #[error(transparent)]
    Auth(#[from] AuthOptionsError),
    /// The section `[messaging]`.
    #[error(transparent)]
    Messaging(#[from] MessagingOptionsError),
    /// A number of replicas that JetStream does not have.
    #[error("nats.replicas must be 1, 3 or 5")]
    Replicas,
    /// The heartbeat timeout is too short.
    #[error("jetstream.silence_ms must be at least {}", MIN_SILENCE.as_millis())]
    Silence,
    /// A log in NATS without NATS servers.
    #[error("log = \"jetstream\" needs NATS servers: name them in nats.url, or with --nats-url")]
    LogWithoutNats,
}

impl ConfigError {
    /// Adds the place of the key, if the file has it and neither a flag nor the environment can set it.
    pub(super) fn at(self, places: &Places) -> Self {
        match self.key().and_then(|key| places.of(&key)) {
            Some(place) => Self::At { place, source: Box::new(self) },
            None => self,
        }
    }

    fn key(&self) -> Option<Vec<&str>> {
        Some(match self {
            Self::NotJson { service, key, .. } => vec!["services", service, key],
            Self::Secret { service, key, .. } | Self::Twice { service, key } => vec!["secrets", service, key],
            Self::ZeroLimit(name) => vec!["limits", name],
            Self::HttpTime => vec!["limits", "http_time_ms"],
            Self::HistoryTime => vec!["deploy", "history_time_ms"],
            Self::NoAttempt(step) if step.contains(['/', '*']) => vec!["retries", "steps", step],
            Self::NoAttempt(kind) => vec!["retries", kind],
            Self::Replicas => vec!["nats", "replicas"],
            Self::HalfCertificate => vec!["nats"],
            Self::NatsUrl(_) => vec!["nats", "url_file"],
            Self::File { key, .. } => key.split('.').collect(),
            Self::Grants(error) => vec!["grants", error.service(), "http"],
            Self::Silence => vec!["jetstream", "silence_ms"],
            Self::Messaging(error) => vec!["messaging", error.key()],
            Self::Auth(error) => vec!["auth", &error.key],
            _ => return None,
        })
    }
}

/// Returns a hint for serde's sentence about an unknown key: "unknown field `que`, expected one of `queue`".
fn meant(sentence: &str) -> String {
    let mut names = sentence.split('`').skip(1).step_by(2);
    match names.next().filter(|_| sentence.starts_with("unknown ")).and_then(|name| nearest(name, names)) {
        Some(name) => format!(": did you mean `{name}`?"),
        None => String::new(),
    }
}
