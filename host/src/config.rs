//! The configuration of a host. What a flag says goes before the environment (`KONTOR_…`), that before `kontor.toml`, and
//! that before the defaults. Limits and the services' own settings stand only in the file.
//!
//! ```toml
//! listen = "127.0.0.1:7070"
//! data = "kontor-data"
//! plugins = "plugins"
//! log_format = "json"
//! name = "shop-1"                     # how the host is called among several; its machine's name unless told
//! log = "jetstream"                   # several hosts; "embedded", the default: one host, and nothing beside it
//!
//! [limits]
//! call_time_ms = 500
//!
//! [retries]
//! undo = { attempts = 20, first_wait_ms = 100, longest_wait_ms = 60_000 }
//!
//! [retries.steps]
//! "place-order/reserve-*" = { attempts = 3, first_wait_ms = 50, longest_wait_ms = 1_000 }
//!
//! [services.payment]
//! card-limit = 500_000
//! gateway-url = "https://gateway.example"
//!
//! [deploy]
//! trusted_keys = []                   # with some, only components that one of them has signed are taken
//! rollback = { window_ms = 60_000, percent = 5, faults = 5 }
//! history_time_ms = 600_000           # that a new version may take to fold the streams of the log
//!
//! [grants.order]
//! services = ["payment", "delivery"]  # that it may ask, beside what is granted when it is deployed
//!
//! [[grants.payment.http]]
//! origin = "https://gateway.example"  # scheme, host, and port unless it is the scheme's own
//! methods = ["POST", "PUT", "DELETE"]
//! private = false                     # true: also loopback, private and link-local addresses
//! headers.authorization = { env = "GATEWAY_AUTHORIZATION" } # or { file = "…" }; the component never sees it
//!
//! [nats]
//! url = "nats://127.0.0.1:4222"       # or several of a cluster, with commas; user:password@ or token@ before the name
//! ca = "ca.pem"                       # with TLS; also certificate and key, if the servers want to see them
//! replicas = 3                        # how many servers keep each stream that the host makes
//!
//! [jetstream]                         # of the log
//! stream = "kontor-log"
//! sync = "always"                     # "interval" accepts that a power cut of all servers at once may take events away
//! monitoring = ["http://127.0.0.1:8222"] # of each server, where that is checked
//! silence_ms = 5_000                  # after which the other hosts take over the sagas of one that is not heard any more
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io, thread};

use serde::Deserialize;
use serde_json::Value;

use crate::clock::milliseconds;
use crate::cluster::{Nats, NatsUrl};
use crate::contract::{Grant, Grants, ReservedRoute};
use crate::deploy::{DeployRules, PublicKey, RollbackRule};
use crate::log::{JetStreamOptions, LogEngine};
use crate::runtime::{CALL_WAIT, HttpLimits};
use crate::saga::Retries;
use crate::telemetry::LogFormat;

/// Read from the working directory if it is there and `--config` names no other file.
pub const DEFAULT_FILE: &str = "kontor.toml";
/// A host that is busy is heard late, and one that others take for gone loses its sagas.
const LEAST_SILENCE: Duration = Duration::from_secs(1);

/// Everything that can be set about a host, complete. Relative paths start at the working directory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How the host is called among those that share its log.
    pub name: String,
    /// Only loopback addresses, see [`Config::check`]. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The directory of the log, the read databases and everything that can be rebuilt from the log.
    pub data: PathBuf,
    /// The directory of the components to run: every `*.wasm` in it.
    pub plugins: PathBuf,
    pub log_format: LogFormat,
    pub limits: Limits,
    /// How often sagas try again what fails.
    pub retries: Retries,
    pub deploy: Deploy,
    /// By service, what `config.get` answers: key and value.
    pub services: BTreeMap<String, BTreeMap<String, Value>>,
    /// By service, what it may do beyond that.
    pub grants: BTreeMap<String, Grants>,
    pub nats: Nats,
    pub log: LogEngine,
    pub jetstream: JetStreamOptions,
}

/// What deployments have to keep to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deploy {
    /// Whose signatures count. None: components need not be signed.
    pub trusted_keys: Vec<PublicKey>,
    /// The longest that a new version may take to fold the streams of the log before it is refused.
    #[serde(rename = "history_time_ms", deserialize_with = "milliseconds")]
    pub history_time: Duration,
    /// When a new version is taken back by itself.
    pub rollback: RollbackRule,
}

/// Past a limit the caller gets a clear problem, and nothing is lost.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest body of a request.
    pub body_bytes: usize,
    /// The longest that a component may compute in one call; waiting for the host does not count.
    #[serde(rename = "call_time_ms", deserialize_with = "milliseconds")]
    pub call_time: Duration,
    /// The most memory of one instance of a component.
    pub call_memory_bytes: usize,
    /// The most instances of all components together at one time.
    pub instances: usize,
    /// The most commands under way in the host.
    pub queue: usize,
    /// The most commands that wait for one aggregate.
    pub aggregate_queue: usize,
    /// The most sagas that run at one time; the others wait.
    pub saga_concurrency: usize,
    /// The longest that a request may wait for a saga (`Prefer: wait`) or a read model.
    #[serde(rename = "wait_ms", deserialize_with = "milliseconds")]
    pub wait: Duration,
    /// The longest that a component waits for the answer to one HTTP request, to its last byte.
    #[serde(rename = "http_time_ms", deserialize_with = "milliseconds")]
    pub http_time: Duration,
    /// The longest body of an HTTP request of a component.
    pub http_request_bytes: usize,
    /// The longest body of the answer.
    pub http_response_bytes: usize,
    /// The most HTTP requests of one service at one time.
    pub http_concurrency: usize,
    /// The most requests that come by NATS at one time.
    pub nats_requests: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            data: PathBuf::from("kontor-data"),
            plugins: PathBuf::from("plugins"),
            log_format: LogFormat::default(),
            limits: Limits::default(),
            retries: Retries::default(),
            deploy: Deploy::default(),
            services: BTreeMap::new(),
            grants: BTreeMap::new(),
            nats: Nats::default(),
            log: LogEngine::default(),
            jetstream: JetStreamOptions::default(),
        }
    }
}

impl Default for Deploy {
    fn default() -> Self {
        // A core folds some millions of streams in that time. Whoever has more waits no longer than this to learn of --sample.
        Self {
            trusted_keys: Vec::new(),
            history_time: Duration::from_secs(600),
            rollback: RollbackRule::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let http = HttpLimits::default();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            // An order of a thousand lines is a tenth of this.
            body_bytes: 1024 * 1024,
            // Calls take microseconds; whoever needs a second is in an endless loop.
            call_time: Duration::from_secs(1),
            call_memory_bytes: 64 * 1024 * 1024,
            // Calls do not wait while they compute, so a few a core keep it busy. The rest is for those that ask
            // another service meanwhile, and for sagas. The upper bound is a tenth of what the address space takes.
            instances: (64 * cores).clamp(128, 1_024),
            // Four of the log's largest groups: the disk always has the next one ready.
            queue: 4_096,
            // One group. What is behind it would wait for longer than a client does.
            aggregate_queue: 1_024,
            // A run that waits for a step costs 75 KiB and a slot of the pool.
            saga_concurrency: 256,
            // Proxies on the way commonly give up after a minute.
            wait: Duration::from_secs(30),
            http_time: http.time,
            http_request_bytes: http.request_bytes,
            http_response_bytes: http.response_bytes,
            http_concurrency: http.concurrency,
            // Half of what dispatch takes: the other half is for those who come by HTTP.
            nats_requests: 2_048,
        }
    }
}

/// What flags and the environment may say about a host; clap puts the flag before the environment. Nothing here has a
/// default, so that what is not given is taken from the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overrides {
    #[command(flatten)]
    pub place: Place,
    /// The address to listen on, loopback only [default: 127.0.0.1:7070]
    #[arg(long, env = "KONTOR_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The directory of the components to run [default: plugins]
    #[arg(long, env = "KONTOR_PLUGINS", value_name = "DIRECTORY")]
    pub plugins: Option<PathBuf>,
    /// How to log to standard error [default: text]
    #[arg(long, env = "KONTOR_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The part of it that says where the log is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Place {
    /// The configuration file [default: kontor.toml, if there is one]
    #[arg(long, env = "KONTOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of the log and the read databases [default: kontor-data]
    #[arg(long, env = "KONTOR_DATA", value_name = "DIRECTORY")]
    pub data: Option<PathBuf>,
    /// The NATS servers to serve and to publish to, such as nats://127.0.0.1:4222 [default: none]
    #[arg(long, env = "KONTOR_NATS_URL", value_name = "URL", hide_env_values = true)]
    pub nats_url: Option<NatsUrl>,
    /// Where the events are [default: embedded]
    #[arg(long, env = "KONTOR_LOG", value_name = "ENGINE")]
    pub log: Option<LogEngine>,
}

/// Why a host cannot be configured so.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration {} cannot be read", .file.display())]
    Read { file: PathBuf, source: io::Error },
    /// The source names the line and the key.
    #[error("the configuration {} is not valid", .file.display())]
    Invalid { file: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "listening on {0} is refused: there is no authentication yet, so only programs of this machine may reach the \
         host; use a loopback address such as 127.0.0.1:7070"
    )]
    NotLoopback(SocketAddr),
    #[error("limits.{0} must be at least 1")]
    ZeroLimit(&'static str),
    #[error("limits.http_time_ms must be below {}, the time of a whole call", CALL_WAIT.as_millis())]
    HttpTime,
    #[error("deploy.history_time_ms must be at least 1")]
    HistoryTime,
    #[error("retries: {0} must allow at least 1 attempt")]
    NoAttempt(String),
    #[error("nats.certificate and nats.key go together: one of them is missing")]
    HalfCertificate,
    #[error("nats.replicas must be 1, 3 or 5")]
    Replicas,
    #[error("jetstream.silence_ms must be at least {}", LEAST_SILENCE.as_millis())]
    Silence,
    #[error("log = \"jetstream\" needs NATS servers: name them in nats.url, or with --nats-url")]
    LogWithoutNats,
}

impl Config {
    /// What deployments have to keep to, with what is granted inside of the host.
    pub(crate) fn deploy_rules(&self, reserved: Vec<ReservedRoute<()>>) -> DeployRules {
        let granted = |grants: &Grants| {
            let services = grants.services.iter().cloned().map(Grant::Service);
            services.chain(grants.subjects.iter().cloned().map(Grant::Subject)).collect()
        };
        let grants = self.grants.iter().map(|(service, grants)| (service.clone(), granted(grants)));
        DeployRules {
            trusted: self.deploy.trusted_keys.clone(),
            grants: grants.collect(),
            history_limit: self.deploy.history_time,
            rollback: self.deploy.rollback,
            reserved,
        }
    }

    /// The defaults, overridden by the file and then by `overrides`, and checked.
    pub fn load(overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = match &overrides.place.config {
            Some(file) => Self::read(file)?,
            None if Path::new(DEFAULT_FILE).exists() => Self::read(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        config.apply(overrides);
        config.check()?;
        Ok(config)
    }

    fn read(file: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Self::parse(&text).map_err(|source| ConfigError::Invalid { file: file.to_owned(), source })
    }

    fn parse(text: &str) -> Result<Self, Box<toml::de::Error>> {
        toml::from_str(text).map_err(Box::new)
    }

    fn apply(&mut self, overrides: Overrides) {
        fn set<T>(value: &mut T, given: Option<T>) {
            if let Some(given) = given {
                *value = given;
            }
        }
        set(&mut self.listen, overrides.listen);
        set(&mut self.data, overrides.place.data);
        set(&mut self.plugins, overrides.plugins);
        set(&mut self.log_format, overrides.log_format);
        set(&mut self.nats.url, overrides.place.nats_url.map(Some));
        set(&mut self.log, overrides.place.log);
    }

    /// Whether a host may run so.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() {
            return Err(ConfigError::NotLoopback(self.listen));
        }
        if let Some(name) = self.retries.without_attempts() {
            return Err(ConfigError::NoAttempt(name.to_owned()));
        }
        if self.deploy.history_time.is_zero() {
            return Err(ConfigError::HistoryTime);
        }
        if self.nats.certificate.is_some() != self.nats.key.is_some() {
            return Err(ConfigError::HalfCertificate);
        }
        if !matches!(self.nats.replicas, 1 | 3 | 5) {
            return Err(ConfigError::Replicas);
        }
        if self.jetstream.heartbeat_timeout < LEAST_SILENCE {
            return Err(ConfigError::Silence);
        }
        if self.log == LogEngine::JetStream && self.nats.url.is_none() {
            return Err(ConfigError::LogWithoutNats);
        }
        self.limits.check()
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let zeros = [
            ("body_bytes", self.body_bytes == 0),
            ("call_time_ms", self.call_time.is_zero()),
            ("call_memory_bytes", self.call_memory_bytes == 0),
            ("instances", self.instances == 0),
            ("queue", self.queue == 0),
            ("aggregate_queue", self.aggregate_queue == 0),
            ("saga_concurrency", self.saga_concurrency == 0),
            ("wait_ms", self.wait.is_zero()),
            ("http_time_ms", self.http_time.is_zero()),
            ("http_request_bytes", self.http_request_bytes == 0),
            ("http_response_bytes", self.http_response_bytes == 0),
            ("http_concurrency", self.http_concurrency == 0),
            ("nats_requests", self.nats_requests == 0),
        ];
        if let Some((name, _)) = zeros.iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::ZeroLimit(name));
        }
        if self.http_time >= CALL_WAIT {
            return Err(ConfigError::HttpTime);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
