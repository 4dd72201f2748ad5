//! Deploys services into the running host, rolls them back and undeploys them.
//!
//! *Invariant:* the services that run are those that the log names. A deployment is on disk before any call
//! sees it, and only one is in progress at a time. *Invariant:* the swap itself stores one pointer: every
//! call sees all of a deployment or nothing of it, and ends on the version that it began with.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Mutex, MutexGuard};

use super::error::DeployError;
use super::gates::{FoldMemory, Upload};
use super::progress::Progress;
use super::report::Report;
use super::rules::{DeployRules, Options};
use crate::clock::SharedClock;
use crate::cluster::Cluster;
use crate::deployed::{
    self, Components, Deployments, GateStep, HistoryEntry, HistoryError, Registry, Release, Running, Store,
};
use crate::log::EventLog;
use crate::model::{Caller, Version};
use crate::projection::Projections;
use crate::runtime::{HttpClient, Runtime};
use crate::saga::Sagas;

/// The parts of the host that deployments need.
pub struct DeployDeps {
    /// The log, which records deployments.
    pub log: Arc<dyn EventLog>,
    /// The time of deployments.
    pub clock: SharedClock,
    /// Loads components.
    pub runtime: Runtime,
    /// Keeps components by digest.
    pub store: Store,
    /// The running set of services.
    pub registry: Arc<Registry>,
    /// The components that may still be needed.
    pub components: Arc<Components>,
    /// Follows the HTTP grants of the deployments.
    pub http: Arc<HttpClient>,
    /// Builds the read models of new versions.
    pub projections: Arc<Projections>,
    /// Moves open sagas to new versions.
    pub sagas: Arc<Sagas>,
    /// The hosts that share the log.
    pub cluster: Cluster,
    /// The states that components have folded in earlier deployments.
    pub(crate) folds: FoldMemory,
    /// The configuration of deployments.
    pub rules: DeployRules,
}

/// Deploys services. A host has one.
pub struct Deployer {
    pub(super) deps: DeployDeps,
    /// The deployments in the log. The lock is held for the whole of a deployment.
    pub(super) deployments: Mutex<Deployments>,
    /// Lock-free copy of `deployments` for readers.
    pub(super) status: ArcSwap<Status>,
    /// The place of the deployment in progress.
    pub(super) progress: Arc<Progress>,
    /// The reason why this host does not run what the log names, if it does not.
    warning: ArcSwapOption<String>,
    /// A sentence about a version that faults and keeps running, until the next deployment.
    faulty: ArcSwapOption<String>,
}

/// The running services, with the version of the stream of deployments that they follow from.
pub(super) struct Status {
    version: Version,
    running: Arc<Vec<Running>>,
}

impl Deployer {
    /// Starts with the deployments in the log, whose services must run already.
    pub(crate) fn new(deps: DeployDeps, deployments: Deployments) -> Arc<Self> {
        let status = ArcSwap::from_pointee(Status::of(&deployments));
        let deployments = Mutex::new(deployments);
        let (warning, faulty) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        let progress = Arc::default();
        Arc::new(Self { deps, deployments, status, progress, warning, faulty })
    }

    /// Returns the running services, by name.
    pub fn running(&self) -> Arc<Vec<Running>> {
        self.status.load().running.clone()
    }

    /// Returns the version of the stream of deployments that this host runs by.
    pub fn version(&self) -> Version {
        self.status.load().version
    }

    /// Returns the step of the deployment in progress. `None`: no component is examined.
    pub fn step(&self) -> Option<GateStep> {
        self.progress.step()
    }

    /// Returns a sentence if this host does not run what the log names, and one if a version faults and could
    /// not be rolled back.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        [&self.warning, &self.faulty].into_iter().filter_map(|warning| warning.load().as_deref().cloned())
    }

    /// Returns the reason why this host does not run what the log names, if it does not.
    pub fn behind(&self) -> Option<Arc<String>> {
        self.warning.load_full()
    }

    pub(super) fn set_warning(&self, warning: Option<String>) {
        self.warning.store(warning.map(Arc::new));
    }

    pub(super) fn set_faulty(&self, faulty: Option<String>) {
        self.faulty.store(faulty.map(Arc::new));
    }

    /// Returns up to `limit` events of the history of deployments after a version of their stream, with an
    /// entry for each service.
    pub async fn history(&self, after: Version, limit: usize) -> Result<Vec<HistoryEntry>, HistoryError> {
        let events = deployed::history(&*self.deps.log, after, limit).await?;
        Ok(events.into_iter().flat_map(|(event, happened)| HistoryEntry::of(&event, happened)).collect())
    }

    /// Deploys components, all or none. Continues if the caller stops waiting.
    pub async fn deploy(
        self: &Arc<Self>,
        uploads: Vec<Upload>,
        options: Options,
        caller: &Caller,
    ) -> Result<Report, DeployError> {
        let (deployer, caller) = (self.clone(), caller.clone());
        detached(async move { deployer.deploy_all(uploads, options, caller).await }).await
    }

    /// Runs an earlier release of a service again: the one before, or the one whose digest begins with `to`.
    /// Rejected with `not-found` or `nothing-to-roll-back`. Continues if the caller stops waiting.
    pub async fn roll_back(
        self: &Arc<Self>,
        service: &str,
        to: Option<&str>,
        options: Options,
        caller: &Caller,
    ) -> Result<Report, DeployError> {
        let (deployer, caller) = (self.clone(), caller.clone());
        let (service, to) = (service.to_owned(), to.map(str::to_owned));
        detached(async move { deployer.rollback_to(&service, to.as_deref(), options, caller).await }).await
    }

    /// Stops running a service. Rejected with `not-found` or `service-in-use`. Continues if the caller stops
    /// waiting.
    pub async fn undeploy(
        self: &Arc<Self>,
        service: &str,
        options: Options,
        caller: &Caller,
    ) -> Result<Release, DeployError> {
        let (deployer, caller, service) = (self.clone(), caller.clone(), service.to_owned());
        detached(async move { deployer.remove(&service, options, caller).await }).await
    }

    /// Waits until no deployment is in progress. None begins while the returned guard is held.
    pub(crate) async fn close(&self) -> MutexGuard<'_, Deployments> {
        self.deployments.lock().await
    }

    /// Locks the deployments for a new one. Fails if one is in progress, or cannot be followed.
    pub(super) fn try_lock(&self) -> Result<MutexGuard<'_, Deployments>, DeployError> {
        self.deployments.try_lock().map_err(|_| match self.behind() {
            Some(why) => DeployError::Behind(why),
            None => DeployError::UnderWay,
        })
    }
}

impl Status {
    pub(super) fn of(deployments: &Deployments) -> Self {
        let running = deployments.running.values().cloned().collect();
        Self { version: deployments.version, running: Arc::new(running) }
    }
}

/// Runs work to its end, even if the caller stops waiting.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, DeployError>> + Send + 'static,
) -> Result<T, DeployError> {
    tokio::spawn(work).await.unwrap_or(Err(DeployError::ShuttingDown))
}
