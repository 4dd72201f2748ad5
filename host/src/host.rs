//! STUB, being written. Wires the parts of a host and runs them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::deploy::Deployed;

/// What a host says once it answers requests.
pub struct Started {
    /// Where it listens; the port is the one it got.
    pub address: SocketAddr,
    pub deployed: Arc<Deployed>,
}

/// Why a host cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("this is not written yet")]
    Stub,
}

/// Runs a host until `shutdown` resolves and everything under way has ended. `started` is called once, when requests are
/// answered.
pub async fn run(
    _config: Config,
    _shutdown: impl Future<Output = ()> + Send,
    _started: impl FnOnce(&Started),
) -> Result<(), HostError> {
    Err(HostError::Stub)
}
