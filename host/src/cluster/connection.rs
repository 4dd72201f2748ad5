//! The connection to NATS: one for all that the host does there. It is made in the background, and made again whenever it
//! breaks, so a host starts and works without it.

use std::fs;
use std::future::ready;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event};
use percent_encoding::percent_decode_str;

use crate::cluster::{Nats, NatsUrl};

/// How the host is called in lists of connections.
const NAME: &str = "kontor";
/// How long a host that starts waits for the servers. Then it goes on without them.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts: so long a server that has been started again is not noticed at most.
const PAUSE: Duration = Duration::from_millis(500);

/// Why there can be no connection, ever, with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("NATS at {url} cannot be connected to as [nats] in kontor.toml has it")]
    Connect { url: NatsUrl, source: async_nats::ConnectError },
    #[error("the credentials for NATS in {} cannot be used", file.display())]
    Credentials { file: PathBuf, source: io::Error },
}

/// A connection that is there, or will be. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    url: Arc<NatsUrl>,
    /// What the last attempt to connect failed at.
    failure: Arc<Mutex<Option<String>>>,
}

impl Connection {
    /// Begins to connect, and waits a moment for that. None if no server is configured.
    pub async fn open(config: &Nats) -> Result<Option<Self>, NatsError> {
        let Some(url) = &config.url else {
            return Ok(None);
        };
        let failure = Arc::default();
        let connecting = options(config, url, &failure)?.connect(url.servers());
        let client = connecting.await.map_err(|source| NatsError::Connect { url: url.clone(), source })?;
        let connection = Self { client, url: Arc::new(url.clone()), failure };
        connection.flush().await;
        if let Some(trouble) = connection.trouble() {
            tracing::warn!("{trouble}; the host goes on trying");
        }
        Ok(Some(connection))
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// A sentence about what is wrong, if something is.
    pub fn trouble(&self) -> Option<String> {
        (!self.is_up()).then(|| {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            let failure = failure.as_ref().map(|failure| format!(" ({failure})")).unwrap_or_default();
            format!(
                "NATS at {} does not answer{failure}: nothing is published, and commands come in by HTTP only",
                self.url
            )
        })
    }

    /// Returns when all that was sent before is on its way, or cannot be in a moment.
    pub(crate) async fn flush(&self) {
        // Err: the servers do not answer, or there is no connection any more, and then nothing waits for it.
        let _ = tokio::time::timeout(PATIENCE, self.client.flush()).await;
    }
}

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
        // Chooses nothing, but is the one who is told why the attempt before has failed.
        .reconnect_to_server_callback(move |servers, _| {
            let error = servers.into_iter().find_map(|server| server.last_error);
            if error.is_some() {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = error;
            }
            ready(None)
        })
        .event_callback(|event| async move { tell(&event) });
    if let Some(ca) = &config.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(certificate), Some(key)) = (&config.certificate, &config.key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    if let Some(file) = &config.credentials {
        let used = fs::read_to_string(file).and_then(|text| identified(options, &text));
        options = used.map_err(|source| NatsError::Credentials { file: file.clone(), source })?;
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

/// `credentials`: as `nsc` writes them, or the seed of an nkey.
fn identified(options: ConnectOptions, credentials: &str) -> io::Result<ConnectOptions> {
    match credentials.trim() {
        seed if seed.starts_with("SU") => Ok(options.nkey(seed.to_owned())),
        _ => options.credentials(credentials),
    }
}

fn tell(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS is lost; the host goes on trying"),
        Event::ServerError(_) | Event::SlowConsumer(_) => tracing::warn!("NATS: {event}"),
        // Twice a second, as long as there is no connection.
        Event::ClientError(_) => tracing::debug!("NATS: {event}"),
        Event::LameDuckMode | Event::Draining | Event::Closed => tracing::info!("NATS: {event}"),
    }
}
