//! Callers, from the outside: evidence in, a caller or a sentence out.

mod fuzz;
mod jwt;
mod oidc;
mod peers;
mod signer;
mod token_life;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::log::EmbeddedLog;

/// 2026-11-28T12:00:00Z.
const NOW_S: u64 = 1_795_867_200;

/// A clock that stands still until the test moves it. Waits for it never end.
struct StoppedClock(AtomicU64);

impl StoppedClock {
    fn advance_s(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }
}

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn until(&self, _: u64) -> BoxFuture<'static, ()> {
        futures::future::pending().boxed()
    }
}

/// A data directory with its log, on which identities come and go.
struct Site {
    data: TempDir,
    log: Arc<dyn EventLog>,
    clock: Arc<StoppedClock>,
}

impl Site {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(data.path()).unwrap());
        Self { data, log, clock: Arc::new(StoppedClock(AtomicU64::new(NOW_S * 1_000))) }
    }

    /// Starts an identity with a section `[auth]`.
    async fn start(&self, auth: &str) -> Result<Identity, IdentityError> {
        let auth: AuthOptions = toml::from_str(auth).unwrap();
        auth.check().unwrap();
        self.start_with(Some(auth)).await
    }

    async fn start_with(&self, auth: Option<AuthOptions>) -> Result<Identity, IdentityError> {
        let (log, clock, data) = (self.log.clone(), self.clock.clone(), self.data.path().to_owned());
        Identity::start(IdentityDeps { log, clock, data, auth }).await
    }
}

/// Returns the subject and the roles of a caller, or the sentence for one that is not identified.
async fn caller(identity: &Identity, authorization: &str) -> Result<(String, String), String> {
    let evidence = Evidence { authorization: Some(authorization), ..Evidence::default() };
    shown(identity.caller(evidence).await)
}

fn shown(caller: Result<Caller, NotIdentified>) -> Result<(String, String), String> {
    let caller = caller.map_err(|error| error.to_string())?;
    let roles: Vec<_> = caller.roles.iter().map(Role::as_str).collect();
    Ok((caller.actor().to_string(), roles.join(" ")))
}

fn somebody(subject: &str, roles: &str) -> Result<(String, String), String> {
    Ok((subject.to_owned(), roles.to_owned()))
}
