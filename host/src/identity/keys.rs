//! The keys of an issuer: a JSON Web Key Set (RFC 7517) in a file or behind a URL. It is read again now and
//! then, and when a token names a key that is not in it. The last one that could be read stays in use, and in
//! the data directory, so that neither an issuer that is away nor a restart keeps anybody out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::options::KeysPlace;
use crate::clock::{SharedClock, millis};
use crate::error::Chain;
use crate::model::hash_prefix;

/// The largest key set in bytes: some hundred keys.
const MAX_BYTES: u64 = 256 << 10;
/// The largest number of keys of an issuer. One has two or three, and a few more while it changes them.
const MAX_KEYS: usize = 64;
/// The longest time for one answer of the issuer. Requests with a new key wait for it.
const FETCH_LIMIT: Duration = Duration::from_secs(5);
/// The time after which the keys are read again. An issuer announces a key at least as long before it uses
/// it, and one that it has withdrawn is accepted no longer than that.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// The shortest time between two attempts, so that tokens with invented keys do not flood the issuer.
const PAUSE: Duration = Duration::from_secs(10);

/// The reason why the keys of an issuer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("the file {} cannot be read", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The issuer does not answer, or with an error.
    #[error("{url} cannot be read")]
    Fetch {
        /// The URL.
        url: String,
        /// The cause.
        source: Box<ureq::Error>,
    },
    /// The text is no key set.
    #[error("it is no JSON Web Key Set")]
    Format(#[from] serde_json::Error),
    /// No key in it can verify a signature.
    #[error("it has no key that can verify a signature")]
    Empty,
    /// The task that reads them was stopped.
    #[error("reading them was stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Fails if a file has no keys that can be used.
pub(super) fn check(file: &Path) -> Result<(), KeysError> {
    KeySet::parse(read(file)?).map(drop)
}

/// The keys of one issuer.
pub(super) struct Keys {
    issuer: String,
    place: KeysPlace,
    /// The file that keeps the last key set of a URL.
    kept: PathBuf,
    clock: SharedClock,
    current: ArcSwapOption<KeySet>,
    /// The time of the last attempt, in milliseconds since 1970-01-01 UTC. Held while the keys are read.
    last_attempt_ms: Mutex<u64>,
    /// Changes with the keys.
    generation: AtomicU64,
    warning: ArcSwapOption<String>,
}

/// The keys of one document.
pub(super) struct KeySet {
    text: String,
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    pub(super) fn parse(text: String) -> Result<Self, KeysError> {
        let document: Document = serde_json::from_str(&text)?;
        // A key of a kind that is not known yet is left out, as RFC 7517 says.
        let keys = document.keys.into_iter().filter_map(|key| Key::of(&serde_json::from_value(key).ok()?));
        let keys: Vec<_> = keys.take(MAX_KEYS).collect();
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Self { text, keys }) }
    }

    /// Returns the key with this id, for this algorithm. A token without the id of a key can only be meant
    /// for a key that is the only one.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let fits = |key: &&Key| {
            key.key.family() == algorithm.family()
                && key.algorithm.as_ref().is_none_or(|named| named.parse() == Ok(algorithm))
                && id.is_none_or(|id| key.id.as_deref() == Some(id))
        };
        let mut fitting = self.keys.iter().filter(fits);
        let found = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then_some(&found.key)
    }
}

impl Key {
    /// Returns none for a key that verifies no signatures, or that is no public key.
    fn of(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
                && common.key_operations.as_ref().is_none_or(|of| of.contains(&KeyOperations::Verify));
        let is_public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
        if !is_for_signatures || !is_public {
            return None;
        }
        Some(Self {
            id: common.key_id.clone(),
            algorithm: common.key_algorithm.map(|algorithm| algorithm.to_string()),
            key: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}

impl Keys {
    /// Returns the keys of an issuer. Those in a file are read at once, and the file must be sound; those of
    /// a URL are what the data directory has, until the issuer answers.
    pub(super) fn open(
        issuer: &str,
        place: &KeysPlace,
        data: &Path,
        clock: SharedClock,
    ) -> Result<Self, KeysError> {
        let kept = data.join(format!("keys-{}.json", hex::encode(hash_prefix::<8>(&[issuer.as_bytes()]))));
        let keys = Self {
            issuer: issuer.to_owned(),
            place: place.clone(),
            kept,
            clock,
            current: ArcSwapOption::empty(),
            last_attempt_ms: Mutex::new(0),
            generation: AtomicU64::new(0),
            warning: ArcSwapOption::empty(),
        };
        match &keys.place {
            KeysPlace::File(file) => keys.replace(KeySet::parse(read(file)?)?),
            KeysPlace::Url(_) => {
                // Err: there is none yet, or it is damaged; the issuer has it.
                if let Ok(set) = read(&keys.kept).and_then(KeySet::parse) {
                    keys.replace(set);
                }
            }
        }
        Ok(keys)
    }

    /// Returns a number that changes when the keys do.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the keys, if they have been read once.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// Returns a sentence if the keys cannot be read.
    pub(super) fn warning(&self) -> Option<String> {
        self.warning.load().as_ref().map(|warning| (**warning).clone())
    }

    /// Reads the keys again and again.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            let read = self.refresh().await;
            let wait = if read { REFRESH } else { PAUSE };
            self.clock.until(self.clock.now_ms().saturating_add(millis(wait))).await;
        }
    }

    /// Reads the keys again, unless that was tried a moment ago. Returns once they are read, by this call or
    /// by another one. Returns false if they cannot be read.
    pub(super) async fn refresh(&self) -> bool {
        let mut last_attempt_ms = self.last_attempt_ms.lock().await;
        let now_ms = self.clock.now_ms();
        if *last_attempt_ms > 0 && now_ms < last_attempt_ms.saturating_add(millis(PAUSE)) {
            return self.warning.load().is_none();
        }
        *last_attempt_ms = now_ms;
        let issuer = &self.issuer;
        match self.read().await {
            Ok(set) => {
                if self.warning.swap(None).is_some() {
                    tracing::info!(issuer, "the keys of the issuer can be read again");
                }
                self.replace(set);
                true
            }
            Err(error) => {
                let warning = format!(
                    "the keys of the issuer {issuer} cannot be read; those from before stay in use: {}",
                    Chain(&error)
                );
                if self.warning.swap(Some(Arc::new(warning))).is_none() {
                    tracing::warn!(
                        issuer,
                        error = %Chain(&error),
                        "failed to read the keys of the issuer; those from before stay in use"
                    );
                }
                false
            }
        }
    }

    async fn read(&self) -> Result<KeySet, KeysError> {
        let (place, kept) = (self.place.clone(), self.kept.clone());
        // Files and ureq block their thread.
        tokio::task::spawn_blocking(move || match place {
            KeysPlace::File(file) => KeySet::parse(read(&file)?),
            KeysPlace::Url(url) => {
                let set = KeySet::parse(fetch(&url)?)?;
                if let Err(error) = fs::write(&kept, &set.text) {
                    tracing::warn!(
                        error = %Chain(&error),
                        "failed to keep an issuer's keys; they are missing after a restart while it is away"
                    );
                }
                Ok(set)
            }
        })
        .await?
    }

    fn replace(&self, set: KeySet) {
        let before = self.current.swap(Some(Arc::new(set)));
        let now = self.current.load();
        if before.as_ref().map(|set| &set.text) != now.as_ref().map(|set| &set.text) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn read(file: &Path) -> Result<String, KeysError> {
    fs::read_to_string(file).map_err(|source| KeysError::File { file: file.to_owned(), source })
}

/// Gets a document. Blocks for [`FETCH_LIMIT`] at most.
fn fetch(url: &str) -> Result<String, KeysError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        // A redirect could lead to a place that the configuration has not checked.
        .max_redirects(0)
        .timeout_global(Some(FETCH_LIMIT))
        .build()
        .into();
    let got = agent.get(url).header("accept", "application/json").call();
    let text = got.and_then(|mut reply| reply.body_mut().with_config().limit(MAX_BYTES).read_to_string());
    text.map_err(|source| KeysError::Fetch { url: url.to_owned(), source: Box::new(source) })
}
