//! The swap: a deployment goes to disk, and then live.

use std::sync::Arc;
use std::time::Duration;

use super::deployer::{DeployError, Deployer, Told};
use super::gates::Candidate;
use super::report::HostReport;
use crate::aggregate::CallError;
use crate::clock::{SharedClock, Time};
use crate::cluster::Member;
use crate::deployed::{self, Deployed, Deployments, Happened, Running};
use crate::log::{Append, AppendError, EventLog, ReadError};
use crate::model::{Actor, CommandId, Meta, event_of};
use crate::runtime::Component;
use crate::saga::ReplayedSaga;

/// How long a deployment waits for the other hosts that share the log: more than they take to fetch and compile a component.
const FOLLOWED: Duration = Duration::from_secs(10);

/// What goes live.
pub(super) struct Swap {
    pub(super) happened: Happened,
    pub(super) deployed: Deployed,
    pub(super) candidates: Vec<Candidate>,
}

/// What is on disk and is to be seen by everybody.
pub(super) struct GoLive {
    pub(super) deployed: Deployed,
    /// Those that are new, with the open sagas that may go on with them.
    pub(super) components: Vec<(Component, Vec<ReplayedSaga>)>,
    /// See [`Happened::is_watched`].
    pub(super) watched: bool,
}

impl Deployer {
    /// Puts it on disk, then has everybody see it.
    pub(super) async fn swap(
        self: Arc<Self>,
        deployments: &mut Deployments,
        Swap { happened, deployed, candidates }: Swap,
        actor: Actor,
    ) -> Result<(), DeployError> {
        let deps = &self.deps;
        for candidate in &candidates {
            deps.components.keep(&candidate.wasm).map_err(DeployError::Store)?;
            deps.store.share(&candidate.wasm).await.map_err(DeployError::Store)?;
        }
        let watched = happened.is_watched();
        record(&*deps.log, &deps.clock, deployments, happened, actor).await?;
        let components = candidates.into_iter();
        let components =
            components.filter_map(|candidate| Some((candidate.component?, candidate.rehearsed))).collect();
        self.go_live(deployments, GoLive { deployed, components, watched }).await;
        Ok(())
    }

    /// Has everybody see what is on disk. From then on it runs, whatever becomes of the rest.
    pub(super) async fn go_live(
        self: Arc<Self>,
        deployments: &Deployments,
        GoLive { deployed, components, watched }: GoLive,
    ) {
        let deps = &self.deps;
        let (before, ran) = (deps.registry.current(), self.running());
        deps.components.keep_releases(deployments.digests().collect());
        deps.http.follow(deployments.origins());
        deps.registry.replace(deployed);
        self.told.store(Arc::new(Told::of(deployments)));
        deps.nodes.send_heartbeat();
        if let Err(error) = deps.projections.follow().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "read models do not follow a deployment"
            );
        }
        for (component, rehearsed) in &components {
            let old = before.service(component.manifest().service.as_str());
            if old.is_some_and(|old| old.digest() == component.digest()) {
                // With other grants.
                continue;
            }
            if let Err(error) = deps.sagas.move_over(rehearsed, component.digest()).await {
                tracing::error!(%error, "open sagas stay on the version before");
            }
            let released = |old: &&Component| ran.iter().find(|ran| ran.release.digest == old.digest());
            if let Some(old) = old.filter(|_| watched)
                && let Some(Running { release, .. }) = released(&old)
            {
                tokio::spawn(self.clone().watch(component.clone(), old.clone(), release.clone()));
            }
        }
        if let Err(error) = deps.sagas.wake().await {
            tracing::warn!(%error, "sagas that wait for a service begin at the next start");
        }
    }

    /// Whether the hosts that share the log follow, after a while in which most do.
    pub(super) async fn hosts(&self) -> Vec<HostReport> {
        if self.deps.nodes.me().is_none() {
            return Vec::new();
        }
        let version = self.version();
        let hosts = self.deps.nodes.follow(version, FOLLOWED).await;
        let report = |node: Member| HostReport {
            name: node.name,
            address: node.address,
            runs: node.status.deployment >= version,
            troubles: node.status.warnings,
        };
        hosts.into_iter().map(report).collect()
    }
}

/// Appends an event to the stream of deployments.
pub(super) async fn record(
    log: &dyn EventLog,
    clock: &SharedClock,
    deployments: &mut Deployments,
    happened: Happened,
    actor: Actor,
) -> Result<(), DeployError> {
    let event = event_of(&happened).map_err(|error| CallError::Read(ReadError(Arc::new(error))))?;
    let time_ms = clock.now_ms();
    let command_id = CommandId::new();
    let meta = Meta {
        correlation_id: command_id.shared().into(),
        command_id,
        command: event.name.shared().into(),
        fingerprint: 0,
        causation_id: None,
        digest: None,
        time_ms,
        actor: actor.clone(),
    };
    let expected = deployments.version;
    let append = Append { stream: deployed::stream(), expected, events: vec![event], meta: Arc::new(meta) };
    log.append(vec![append]).await.map_err(|error| match error {
        // By another host that shares the log: this one is about to see it.
        AppendError::Conflict { .. } => DeployError::UnderWay,
        other => other.into(),
    })?;
    deployments.take_in(expected.next(), Time(time_ms), &actor, happened);
    Ok(())
}
