//! The configuration of a host. A flag overrides the environment (`KONTOR_…`), which overrides `kontor.toml`,
//! which overrides the defaults. Limits and the services' own settings can only be set in the file.
//! `docs/reference/configuration.md` describes every key; a test holds it to them.
//!
//! ```toml
//! listen = "127.0.0.1:7070"
//! data = "kontor-data"
//! plugins = "plugins"
//! log_format = "json"
//! name = "shop-1"                     # the host's name in its cluster; default: the machine's name
//! log = "jetstream"                   # for several hosts; the default "embedded" is for one
//!
//! [http]
//! hosts = ["shop.example"]            # the names by which clients call the host, beside localhost
//! origins = ["https://app.example"]   # the pages elsewhere that may call it
//! trusted_proxies = ["10.0.0.0/8"]    # the proxies that end TLS and say who their client is
//!
//! [tls]                               # files in PEM, loaded again when they change
//! certificate = "shop.pem"
//! key = "shop.key"
//! client_ca = "tills.pem"             # the authorities whose client certificates are accepted
//!
//! [admin]
//! listen = "127.0.0.1:7071"           # the only address that answers the routes of operators
//! socket = "kontor-data/kontor.sock"  # a Unix socket for the user of the host
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
//! trusted_keys = []                   # with any, only components signed with one of them are accepted
//! rollback = { window_ms = 60_000, percent = 5, faults = 5 }
//! history_time_ms = 600_000           # the longest time to fold the streams of the log with a new version
//!
//! [secrets.payment]                   # values of [services.payment] that do not stand in the file
//! gateway-key = { env = "GATEWAY_KEY" } # or { file = "…" }
//!
//! [grants.order]
//! services = ["payment", "delivery"]  # the services that it may query
//!
//! [[grants.payment.http]]
//! origin = "https://gateway.example"  # scheme and host, and the port if it is not the default one
//! methods = ["POST", "PUT", "DELETE"]
//! private = false                     # true: also loopback, private and link-local addresses
//! headers.authorization = { env = "GATEWAY_AUTHORIZATION" } # or { file = "…" }; the component never sees it
//!
//! [auth]                              # requests are authenticated
//! nats_roles = ["clerk"]              # those of requests over NATS without a token
//!
//! [[auth.issuers]]                    # whose JWTs are accepted
//! issuer = "https://id.example/realms/shop"
//! audience = ["kontor"]
//! jwks = "https://id.example/realms/shop/protocol/openid-connect/certs" # or a file
//! algorithms = ["RS256"]
//! roles = "realm_access.roles"        # the path of the claim
//!
//! [gc]
//! every_ms = 86_400_000               # the time between two garbage collections
//! ended_sagas_ms = 2_592_000_000      # sagas that have ended are listed for so long
//!
//! [nats]
//! url = "nats://127.0.0.1:4222"       # several with commas; user:password@ or token@ may precede the host
//! # url_file = "/run/secrets/nats"    # in place of url: a file with it, which keeps a password out of here
//! ca = "ca.pem"                       # for TLS; also certificate and key, if the servers ask for them
//! replicas = 3                        # the number of servers that keep each stream
//!
//! [messaging]
//! source = "https://shop.example"     # the beginning of the source of all CloudEvents
//! type_prefix = "example.shop"        # and of their types
//! dropped_subscription_ms = 86_400_000 # messages are kept so long for a subscription that no version has
//!
//! [jetstream]                         # the stream of the log
//! stream = "kontor-log"
//! sync = "always"                     # "interval": a power cut of all servers at once may lose events
//! monitoring = ["http://127.0.0.1:8222"] # the monitoring address of each server, where `sync` is checked
//! silence_ms = 5_000                  # the heartbeat timeout: then other members take over the sagas
//! ```

mod error;
mod files;
mod limits;
mod listen;
mod names;
mod paths;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::clock::milliseconds;
use crate::cluster::{Nats, NatsUrl};
use crate::contract::{Grants, Places, SecretSource};
use crate::deploy::{PublicKey, RollbackRule};
use crate::edge::http::{AdminOptions, HttpOptions, TlsFiles};
use crate::gc::GcOptions;
use crate::identity::AuthOptions;
use crate::log::{JetStreamOptions, LogEngine};
use crate::messaging::MessagingOptions;
use crate::model::Caller;
use crate::saga::Retries;
use crate::telemetry::LogFormat;

pub use self::error::ConfigError;
pub use self::limits::Limits;
pub use self::listen::Missing;

/// The configuration file in the working directory, which is read if it exists and `--config` names no other.
pub const DEFAULT_FILE: &str = "kontor.toml";
/// The shortest heartbeat timeout. The heartbeats of a busy host are late, and a silent host loses its sagas.
const MIN_SILENCE: Duration = Duration::from_secs(1);

/// The whole configuration of a host. Relative paths of the file start at the file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name of this host among the members of a cluster.
    pub name: String,
    /// The address to listen on. One that other machines can reach needs TLS and authentication. Port 0 takes
    /// any free port.
    pub listen: SocketAddr,
    /// The section `[http]`: the names of the host, and those who may call it for others.
    pub http: HttpOptions,
    /// The section `[tls]`: the certificate of the host.
    pub tls: Option<TlsFiles>,
    /// The section `[admin]`: the listeners of the operators.
    pub admin: AdminOptions,
    /// The directory of the log, the read databases, and everything that can be rebuilt from the log.
    pub data: PathBuf,
    /// The directory of the components to run: every `*.wasm` in it.
    pub plugins: PathBuf,
    /// The format of the host's own log on standard error.
    pub log_format: LogFormat,
    /// The section `[limits]`.
    pub limits: Limits,
    /// The section `[retries]`: the limits of the retries of sagas.
    pub retries: Retries,
    /// The section `[deploy]`.
    pub deploy: Deploy,
    /// The section `[auth]`. None: requests are not authenticated.
    pub auth: Option<AuthOptions>,
    /// The sections `[services.<name>]`: keys and values of `config.get`, by service.
    pub services: BTreeMap<String, BTreeMap<String, Value>>,
    /// The sections `[secrets.<name>]`: further keys of `config.get`, by service, with the source of each
    /// value.
    pub secrets: BTreeMap<String, BTreeMap<String, SecretSource>>,
    /// The sections `[grants.<name>]`: permissions, by service.
    pub grants: BTreeMap<String, Grants>,
    /// The section `[gc]`: the garbage collection.
    pub gc: GcOptions,
    /// The section `[nats]`.
    pub nats: Nats,
    /// The section `[messaging]`.
    pub messaging: MessagingOptions,
    /// The engine of the event log.
    pub log: LogEngine,
    /// The section `[jetstream]`: the stream of the log.
    pub jetstream: JetStreamOptions,
    /// The places of the keys in the file.
    #[serde(skip)]
    pub places: Places,
}

/// The section `[deploy]`: the rules of deployments.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deploy {
    /// The keys whose signatures are accepted. With none, components need not be signed.
    pub trusted_keys: Vec<PublicKey>,
    /// The longest time that a new version may take to fold the streams of the log.
    #[serde(rename = "history_time_ms", deserialize_with = "milliseconds")]
    pub history_time: Duration,
    /// The limits beyond which a new version is rolled back automatically.
    pub rollback: RollbackRule,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            http: HttpOptions::default(),
            tls: None,
            admin: AdminOptions::default(),
            data: PathBuf::from("kontor-data"),
            plugins: PathBuf::from("plugins"),
            log_format: LogFormat::default(),
            limits: Limits::default(),
            retries: Retries::default(),
            deploy: Deploy::default(),
            auth: None,
            services: BTreeMap::new(),
            secrets: BTreeMap::new(),
            grants: BTreeMap::new(),
            gc: GcOptions::default(),
            nats: Nats::default(),
            messaging: MessagingOptions::default(),
            log: LogEngine::default(),
            jetstream: JetStreamOptions::default(),
            places: Places::default(),
        }
    }
}

impl Default for Deploy {
    fn default() -> Self {
        // A core folds some millions of streams in this time. A larger log needs --sample, as the refusal
        // says.
        Self {
            trusted_keys: Vec::new(),
            history_time: Duration::from_secs(600),
            rollback: RollbackRule::default(),
        }
    }
}

/// The settings of flags and of the environment. None has a default, so that a missing one is taken from the
/// file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overrides {
    /// The settings that the commands without a host have too.
    #[command(flatten)]
    pub place: Place,
    /// The address to listen on; any but loopback needs TLS and authentication [default: 127.0.0.1:7070]
    #[arg(long, env = "KONTOR_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The directory of the components to run [default: plugins]
    #[arg(long, env = "KONTOR_PLUGINS", value_name = "DIRECTORY")]
    pub plugins: Option<PathBuf>,
    /// The format of the log on standard error [default: text]
    #[arg(long, env = "KONTOR_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The settings that name the log.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Place {
    /// The configuration file [default: kontor.toml, if there is one]
    #[arg(long, env = "KONTOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of the log and the read databases [default: kontor-data]
    #[arg(long, env = "KONTOR_DATA", value_name = "DIRECTORY")]
    pub data: Option<PathBuf>,
    /// The NATS servers, such as nats://127.0.0.1:4222 [default: none]
    #[arg(long, env = "KONTOR_NATS_URL", value_name = "URL", hide_env_values = true)]
    pub nats_url: Option<NatsUrl>,
    /// The engine of the event log [default: embedded]
    #[arg(long, env = "KONTOR_LOG", value_name = "ENGINE")]
    pub log: Option<LogEngine>,
}

impl Config {
    /// Returns the caller in the place of one that has not signed in: without `[auth]` it may do everything.
    pub(crate) fn nobody(&self) -> Caller {
        match self.auth {
            Some(_) => Caller::default(),
            None => Caller::unauthenticated_operator(),
        }
    }

    /// Returns the defaults, overridden by the file and then by `overrides`. Fails if a value is not valid.
    pub fn load(overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = match &overrides.place.config {
            Some(file) => Self::read(file)?,
            None if Path::new(DEFAULT_FILE).exists() => Self::read(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        let read = config.nats.read_url_file();
        read.map_err(|error| ConfigError::from(error).at(&config.places))?;
        config.apply(overrides);
        config.check().map_err(|error| error.at(&config.places))?;
        Ok(config)
    }

    /// Reads a configuration file.
    fn read(file: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        let invalid = |source| ConfigError::Invalid { file: file.to_owned(), source };
        let mut config = Self::parse(&text).map_err(invalid)?;
        let given: toml::Table = text.parse().map_err(|source| invalid(Box::new(source)))?;
        config.start_paths_at(file.parent().unwrap_or(Path::new("")), &given);
        config.places = Places::new(file.to_owned(), text);
        Ok(config)
    }

    /// Parses the text of a configuration file. A missing key has its default.
    fn parse(text: &str) -> Result<Self, Box<toml::de::Error>> {
        toml::from_str(text).map_err(Box::new)
    }

    /// Sets the values that were given.
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

    /// Checks that a host can run with this configuration.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_listeners()?;
        if let Some(name) = self.retries.without_attempts() {
            return Err(ConfigError::NoAttempt(name.to_owned()));
        }
        if self.deploy.history_time.is_zero() {
            return Err(ConfigError::HistoryTime);
        }
        self.auth.iter().try_for_each(AuthOptions::check)?;
        if self.nats.certificate.is_some() != self.nats.key.is_some() {
            return Err(ConfigError::HalfCertificate);
        }
        if !matches!(self.nats.replicas, 1 | 3 | 5) {
            return Err(ConfigError::Replicas);
        }
        self.messaging.check()?;
        if self.jetstream.heartbeat_timeout < MIN_SILENCE {
            return Err(ConfigError::Silence);
        }
        if self.log == LogEngine::JetStream && self.nats.url.is_none() {
            return Err(ConfigError::LogWithoutNats);
        }
        self.limits.check()
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
