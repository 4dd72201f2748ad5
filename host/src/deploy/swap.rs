//! The swap: a deployment is written to disk, and then goes live.

use std::sync::Arc;
use std::time::Duration;

use super::deployer::{Deployer, Status};
use super::error::DeployError;
use super::gates::Candidate;
use super::report::HostReport;
use super::watch::Watched;
use crate::cluster::Member;
use crate::deployed::{Deployed, Deployments, Happened, Running};
use crate::error::Chain;
use crate::model::Caller;
use crate::runtime::Component;
use crate::saga::ReplayedSaga;

/// The longest time that a deployment waits for the other hosts that share the log: longer than they take to
/// fetch and compile a component.
const FOLLOWED: Duration = Duration::from_secs(10);

/// A deployment that has passed its gates.
pub(super) struct Swap {
    pub(super) happened: Happened,
    pub(super) deployed: Deployed,
    pub(super) candidates: Vec<Candidate>,
}

/// A deployment that is in the log, and is to run on this host.
pub(super) struct GoLive {
    pub(super) deployed: Deployed,
    /// The new components, with the open sagas that may move to them.
    pub(super) components: Vec<(Component, Vec<ReplayedSaga>)>,
    /// See [`Happened::is_watched`].
    pub(super) watched: bool,
}

impl Deployer {
    /// Writes a deployment to disk, then makes it visible to all calls.
    pub(super) async fn swap(
        self: Arc<Self>,
        deployments: &mut Deployments,
        Swap { happened, deployed, candidates }: Swap,
        caller: Caller,
    ) -> Result<(), DeployError> {
        let deps = &self.deps;
        for candidate in &candidates {
            deps.components.keep(&candidate.wasm).map_err(DeployError::Store)?;
            deps.store.share(&candidate.wasm).await.map_err(DeployError::Store)?;
        }
        let watched = happened.is_watched();
        let position = deployments.record(&*deps.log, deps.clock.now_ms(), happened, caller).await?;
        deps.registry.history().add(position, deployments);
        let components = candidates.into_iter();
        let components =
            components.filter_map(|candidate| Some((candidate.component?, candidate.rehearsed))).collect();
        self.go_live(deployments, GoLive { deployed, components, watched }).await;
        Ok(())
    }

    /// Makes a deployment on disk visible to all calls. From then on it runs, even if a later part fails.
    pub(super) async fn go_live(
        self: Arc<Self>,
        deployments: &Deployments,
        GoLive { deployed, components, watched }: GoLive,
    ) {
        let deps = &self.deps;
        let (before, ran) = (deps.registry.current(), self.running());
        deps.components.keep_releases(deployments.digests().collect());
        deps.http.follow(deployments.origins());
        deps.runtime.grant(deployments.grants());
        deps.registry.replace(deployed);
        self.status.store(Arc::new(Status::of(deployments)));
        self.set_faulty(None);
        deps.cluster.send_heartbeat();
        if let Err(error) = deps.projections.follow().await {
            tracing::error!(
                error = %Chain(&error),
                "failed to update the read models after a deployment; the next one tries again"
            );
        }
        for (component, rehearsed) in &components {
            let old = before.service(component.manifest().service.as_str());
            if old.is_some_and(|old| old.digest() == component.digest()) {
                // Only its grants differ.
                continue;
            }
            if let Err(error) = deps.sagas.move_over(rehearsed, component.digest()).await {
                tracing::error!(
                    error = %Chain(&error),
                    "failed to move open sagas; they end on the previous version"
                );
            }
            let released = |old: &&Component| ran.iter().find(|ran| ran.release.digest == old.digest());
            if let Some(old) = old.filter(|_| watched)
                && let Some(Running { release, .. }) = released(&old)
            {
                let (replaced, before) = (release.clone(), old.recent_calls());
                let window = deps.rules.rollback.window;
                let (component, old) = (component.clone(), Some(old.clone()));
                let watched = Watched { component, old, replaced, before, window };
                tokio::spawn(self.clone().watch(watched));
            }
        }
        deps.sagas.wake();
    }

    /// Waits until the hosts that share the log run the deployment, up to [`FOLLOWED`], and reports on each.
    pub(super) async fn hosts(&self) -> Vec<HostReport> {
        if self.deps.cluster.me().is_none() {
            return Vec::new();
        }
        let version = self.version();
        let hosts = self.deps.cluster.follow(version, FOLLOWED).await;
        let report = |node: Member| HostReport {
            name: node.name,
            address: node.address,
            runs: node.status.deployment >= version,
            warnings: node.status.warnings,
        };
        hosts.into_iter().map(report).collect()
    }
}
