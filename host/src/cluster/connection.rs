//! The connection to NATS: one for all purposes of the host. It is established in the background, and again
//! whenever it breaks, so a host starts and works without it.

use std::fs;
use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::client::FlushErrorKind;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event};
use nkeys::KeyPair;
use percent_encoding::percent_decode_str;
use tokio::task::JoinSet;

use crate::cluster::{Nats, NatsUrl};

/// The name of the host in the servers' lists of connections.
const NAME: &str = "kontor";
/// The longest wait for the servers when a host starts. After it the host continues without them.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two attempts: the longest time until a restarted server is noticed.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause between two looks at the client: the longest time until its failure is noticed.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// The reasons why this configuration can never give a connection.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The client refuses the options.
    #[error("cannot connect to NATS at {url} with the settings of [nats] in kontor.toml")]
    Connect {
        /// The servers.
        url: NatsUrl,
        /// The cause.
        source: async_nats::ConnectError,
    },
    /// The file of credentials cannot be read or parsed.
    #[error("the credentials for NATS in {} cannot be used", file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A connection that is up, or is being established. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    url: Arc<NatsUrl>,
    /// The error of the last attempt to connect.
    failure: Arc<Mutex<Option<String>>>,
    /// True if the client has failed, so that it never connects again.
    failed: Arc<AtomicBool>,
    /// The task that watches the client. It ends with the connection.
    _watch: Arc<JoinSet<()>>,
}

impl Connection {
    /// Begins to connect, and waits for it for a moment. `None`: no server is configured.
    pub async fn open(config: &Nats) -> Result<Option<Self>, NatsError> {
        let Some(url) = &config.url else {
            return Ok(None);
        };
        let failure = Arc::default();
        let connecting = options(config, url, &failure)?.connect(url.servers());
        let client = connecting.await.map_err(|source| NatsError::Connect { url: url.clone(), source })?;
        let (failed, mut watching) = (Arc::default(), JoinSet::new());
        watching.spawn(watch(client.clone(), Arc::clone(&failed)));
        let _watch = Arc::new(watching);
        let connection = Self { client, url: Arc::new(url.clone()), failure, failed, _watch };
        connection.flush().await;
        if let Some(warning) = connection.warning() {
            tracing::warn!("{warning}; trying again");
        }
        Ok(Some(connection))
    }

    /// Returns the client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns whether the connection is up.
    pub fn is_up(&self) -> bool {
        !self.has_failed() && self.client.connection_state() == State::Connected
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns a sentence if the connection is down.
    pub fn warning(&self) -> Option<String> {
        (!self.is_up()).then(|| {
            if self.has_failed() {
                return format!(
                    "the client of NATS at {} has failed and does not connect again: nothing is published, \
                     and commands come in by HTTP only, until the host is started again",
                    self.url
                );
            }
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            let failure = failure.as_ref().map(|failure| format!(" ({failure})")).unwrap_or_default();
            format!(
                "NATS at {} does not answer{failure}: nothing is published, and commands come in by HTTP \
                 only",
                self.url
            )
        })
    }

    /// Waits for a moment until all messages sent before are handed to the network.
    pub(crate) async fn flush(&self) {
        // Err: the servers do not answer, or the connection is closed. Then the caller need not wait.
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, self.client.flush()).await;
    }
}

/// Waits until the client fails: a message that it cannot read may end its task, and it says nothing then.
async fn watch(client: Client, failed: Arc<AtomicBool>) {
    loop {
        let flushed = client.flush().await;
        if flushed.is_err_and(|error| error.kind() == FlushErrorKind::SendError) {
            failed.store(true, Ordering::Relaxed);
            tracing::error!(
                "the client of NATS has failed; NATS is not used until the host is started again"
            );
            return;
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// Returns the options of the client. `failure`: receives the error of each failed attempt.
fn options(
    config: &Nats,
    url: &NatsUrl,
    failure: &Arc<Mutex<Option<String>>>,
) -> Result<ConnectOptions, NatsError> {
    let failed = failure.clone();
    let mut options = ConnectOptions::new()
        .name(NAME)
        .retry_on_initial_connect()
        .reconnect_delay_callback(|attempt| if attempt == 0 { Duration::ZERO } else { PAUSE })
        // Leaves the choice of the server to the client: the callback only gets to know why the last attempt
        // failed.
        .reconnect_to_server_callback(move |servers, _| {
            let error = servers.into_iter().find_map(|server| server.last_error);
            if error.is_some() {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = error;
            }
            ready(None)
        })
        .event_callback(|event| async move { log_event(&event) });
    if let Some(ca) = &config.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(certificate), Some(key)) = (&config.certificate, &config.key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    if let Some(file) = &config.credentials {
        options = with_credentials(options, file)?;
    }
    let Some((name, password)) =
        url.servers().iter().find_map(|server| Some((server.username()?, server.password())))
    else {
        return Ok(options);
    };
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Ok(match password {
        Some(password) => options.user_and_password(decoded(name), decoded(password)),
        None => options.token(decoded(name)),
    })
}

impl Nats {
    /// Fails if the file of credentials cannot be used.
    pub(crate) fn check_credentials(&self) -> Result<(), NatsError> {
        let mut files = self.credentials.iter();
        files.try_for_each(|file| with_credentials(ConnectOptions::new(), file).map(drop))
    }
}

fn with_credentials(options: ConnectOptions, file: &Path) -> Result<ConnectOptions, NatsError> {
    let used = fs::read_to_string(file).and_then(|text| identified(options, &text));
    used.map_err(|source| NatsError::Credentials { file: file.to_owned(), source })
}

/// Adds the host's identity. `credentials`: the content of a file as `nsc` writes it, or the seed of an nkey.
fn identified(options: ConnectOptions, credentials: &str) -> io::Result<ConnectOptions> {
    match credentials.trim() {
        seed if seed.starts_with("SU") => {
            // The client would look at it only when it connects.
            KeyPair::from_seed(seed).map_err(io::Error::other)?;
            Ok(options.nkey(seed.to_owned()))
        }
        _ => options.credentials(credentials),
    }
}

/// Logs a change of the connection.
fn log_event(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS is lost; trying again"),
        Event::ServerError(_) | Event::SlowConsumer(_) => tracing::warn!("NATS: {event}"),
        // Not a warning, because it comes twice a second while there is no connection.
        Event::ClientError(_) => tracing::debug!("NATS: {event}"),
        Event::LameDuckMode | Event::Draining | Event::Closed => tracing::info!("NATS: {event}"),
    }
}
