//! Where the outside comes in, by HTTP and by NATS. Wire types stay in here; further in there are only the types of
//! [`crate::model`].

mod command;
mod headers;
pub mod http;
mod metrics;
pub mod nats;
mod query;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use self::http::HttpLimits;
use crate::aggregate::Dispatch;
use crate::cluster::{Cluster, Status};
use crate::deploy::Deployer;
use crate::deployed::Registry;
use crate::log::EventLog;
use crate::messaging::Messaging;
use crate::projection::Projections;
use crate::query::Queries;
use crate::saga::Sagas;

/// What the edge hands requests to.
pub struct HostContext {
    pub log: Arc<dyn EventLog>,
    pub registry: Arc<Registry>,
    pub dispatch: Arc<Dispatch>,
    pub queries: Arc<Queries>,
    pub projections: Arc<Projections>,
    pub sagas: Arc<Sagas>,
    pub deployer: Arc<Deployer>,
    /// None without NATS.
    pub messaging: Option<Messaging>,
    pub nodes: Cluster,
    /// The recorder behind it must be installed before the edge starts.
    pub metrics: PrometheusHandle,
    pub limits: HttpLimits,
}

impl HostContext {
    /// How the host is.
    pub(crate) fn status(&self) -> Status {
        Status {
            position: *self.log.head().borrow(),
            deployment: self.deployer.version(),
            troubles: self.troubles(),
        }
    }

    /// Sentences about what does not work and does not keep the host from taking traffic, none if all does.
    fn troubles(&self) -> Vec<String> {
        let log = (!self.log.state().takes_appends)
            .then(|| "the log takes no commands at the moment; queries are answered".to_owned());
        let messaging = self.messaging.as_ref().map(Messaging::warnings).unwrap_or_default();
        log.into_iter().chain(messaging).chain(self.nodes.trouble()).chain(self.deployer.warning()).collect()
    }
}

/// Resolves when the host shuts down, at once if that has begun.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the server is gone: that is a shutdown as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
