//! The edges: HTTP and NATS. The types of axum, hyper and NATS stay in here; the layers below have only those
//! of [`crate::model`].

mod caller_limits;
mod command;
mod denied;
mod headers;
pub mod http;
mod log_rate;
mod metrics;
pub mod nats;
mod query;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

pub use self::caller_limits::{CallerLimits, Rate};
use self::http::{HttpLimits, HttpOptions};
use crate::aggregate::Dispatch;
use crate::audit::Audit;
use crate::cluster::{Cluster, Status};
use crate::deploy::Deployer;
use crate::deployed::Registry;
use crate::gc::Gc;
use crate::identity::Identity;
use crate::log::EventLog;
use crate::messaging::Messaging;
use crate::projection::Projections;
use crate::query::Queries;
use crate::saga::{Admission, Sagas};

/// The parts of the host that answer requests.
pub struct HostContext {
    /// The identification of callers.
    pub identity: Arc<Identity>,
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The deployed components.
    pub registry: Arc<Registry>,
    /// The dispatch of commands.
    pub dispatch: Arc<Dispatch>,
    /// Admits commands.
    pub admission: Arc<Admission>,
    /// The queries.
    pub queries: Arc<Queries>,
    /// The read models.
    pub projections: Arc<Projections>,
    /// The sagas.
    pub sagas: Arc<Sagas>,
    /// The deployments.
    pub deployer: Arc<Deployer>,
    /// The record of what operators do.
    pub audit: Audit,
    /// The garbage collection.
    pub gc: Arc<Gc>,
    /// None: the host is not connected to NATS.
    pub messaging: Option<Messaging>,
    /// The members of the cluster.
    pub nodes: Cluster,
    /// The metrics. Their recorder must be installed before the edge starts.
    pub metrics: PrometheusHandle,
    /// The limits of HTTP clients.
    pub limits: HttpLimits,
    /// The names of the host, and those who may call it for others.
    pub perimeter: HttpOptions,
    /// The limits of one caller.
    pub callers: CallerLimits,
}

impl HostContext {
    /// Returns the state of the host for the other members of the cluster.
    pub(crate) fn status(&self) -> Status {
        Status {
            position: *self.log.head().borrow(),
            deployment: self.deployer.version(),
            warnings: self.warnings(),
        }
    }

    /// Returns the defects that do not keep the host from taking traffic, a sentence each.
    fn warnings(&self) -> Vec<String> {
        let log_state = self.log.state();
        let log = match &log_state.stopped {
            Some(why) => Some(format!("this host does not follow the log any more: {why}")),
            None => (!log_state.takes_appends)
                .then(|| "the log takes no commands at the moment; queries are answered".to_owned()),
        };
        let stalled = log_state
            .stalled
            .map(|time| format!("the disk of the log has taken {} s for a commit so far", time.as_secs()));
        let messaging = self.messaging.as_ref().map(Messaging::warnings).unwrap_or_default();
        log.into_iter()
            .chain(stalled)
            .chain(self.projections.warnings())
            .chain(self.sagas.warning())
            .chain(messaging)
            .chain(self.nodes.warning())
            .chain(self.deployer.warnings())
            .chain(self.identity.warnings())
            .chain(self.gc.warning())
            .collect()
    }
}

/// Resolves when the host shuts down, or at once if the shutdown has begun.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // Err: the server is gone, which is a shutdown as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
