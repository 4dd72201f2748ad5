//! Watches a new version for a while after the swap, and rolls it back if it faults more than the version
//! before.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::interval;

use super::deployer::Deployer;
use super::error::DeployError;
use super::faults::excess;
use super::kept::ACTOR;
use super::swap::Swap;
use crate::clock::{Stopwatch, millis};
use crate::deployed::{Happened, PastError, Release};
use crate::error::{Chain, with_causes};
use crate::model::{Caller, Rejection};
use crate::runtime::{Component, Tallies};
use crate::saga::SagaError;

/// The interval between two checks. It is short, because callers notice the faults in between.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A version that is watched.
pub(super) struct Watched {
    pub(super) component: Component,
    /// The version before, if this host has run it. If not, it is loaded when it is needed.
    pub(super) old: Option<Component>,
    /// The release that ran before it.
    pub(super) replaced: Release,
    /// The last calls of the version before. Empty if this host has not run it.
    pub(super) before: Tallies,
    /// The rest of the time for which it is watched.
    pub(super) window: Duration,
}

impl Deployer {
    /// Watches the versions that were being watched when the host stopped, for the rest of their time. The
    /// calls of the versions before are not known any more. Continues rollbacks too.
    pub(crate) fn watch_again(self: &Arc<Self>) {
        let now = self.deps.clock.now_ms();
        let current = self.deps.registry.current();
        for running in &*self.running() {
            let (deployer, again) = (self.clone(), running.clone());
            tokio::spawn(async move {
                if let Err(error) = deployer.keep_again(again).await {
                    tracing::error!(error = %Chain(&error), "failed to continue a rollback; streams that the \
                        last calls of the newer version wrote may not be readable");
                }
            });
            let since = Duration::from_millis(now.saturating_sub(running.since.0));
            let left = self.deps.rules.rollback.window.checked_sub(since);
            let component = current.service(running.release.service.as_str());
            if let (Some(trial), Some(window), Some(component)) = (&running.trial, left, component) {
                let watched = Watched {
                    component: component.clone(),
                    old: None,
                    replaced: trial.replaced.clone(),
                    before: Tallies::new(),
                    window,
                };
                tracing::info!(
                    service = %running.release.service,
                    left_ms = millis(window),
                    "watching a new version for the rest of its time"
                );
                tokio::spawn(self.clone().watch(watched));
            }
        }
    }

    /// Watches a new version. Boxed, because a rollback is a swap too, and a swap starts a watch.
    pub(super) fn watch(self: Arc<Self>, watched: Watched) -> BoxFuture<'static, ()> {
        self.watch_for_faults(watched).boxed()
    }

    async fn watch_for_faults(self: Arc<Self>, watched: Watched) {
        let Watched { component: new, old, replaced, before, window } = watched;
        let since_swap = Stopwatch::start();
        // The calls of the gates do not count.
        let at_swap = new.total_calls();
        let mut checks = interval(CHECK_INTERVAL);
        while since_swap.elapsed() < window {
            checks.tick().await;
            let current = self.deps.registry.current();
            let service = &new.manifest().service;
            if current.service(service.as_str()).is_none_or(|running| running.digest() != new.digest()) {
                return;
            }
            let now = new.total_calls().into_iter();
            let since = now.map(|(name, tally)| {
                let before = at_swap.get(&name).copied().unwrap_or_default();
                (name, tally.since(before))
            });
            let since = since.collect();
            let Some(reason) = excess(self.deps.rules.rollback, &since, &before) else { continue };
            if let Err(error) = self.take_back(&new, old, replaced, reason).await {
                let error = with_causes(&error);
                tracing::error!(%service, error, "failed to roll back a faulty version; it keeps running");
                metrics::counter!("kontor_rollbacks_failed_total", "service" => service.to_string())
                    .increment(1);
                self.stays_faulty(service, new.digest(), &error);
            }
            return;
        }
    }

    /// Rolls back a version that faults too often, to the release that ran before. Streams that this release
    /// cannot fold stay with the version that has written to them.
    async fn take_back(
        self: &Arc<Self>,
        new: &Component,
        old: Option<Component>,
        to: Release,
        reason: String,
    ) -> Result<(), DeployError> {
        let mut deployments = self.deployments.lock().await;
        let service = &new.manifest().service;
        let from = new.digest();
        let Some(running) = deployments.running.get(service).filter(|running| running.release.digest == from)
        else {
            // Another deployment has replaced the version.
            return Ok(());
        };
        let old = match old {
            Some(old) => old,
            None => self.deps.components.get(to.digest).await.map_err(|error| gone(&error))?,
        };
        let Some(trial) = &running.trial else { return Ok(()) };
        let (kept, read) = self.only_newer(new, &old, trial).await?;
        let deployed = self.deps.registry.current().with(std::slice::from_ref(&old));
        let deployed = deployed.map_err(|error| Rejection::new("side-by-side", error.to_string()))?;
        let deployed = deployed.keeping(new, &kept);
        let (from_short, to_short) = (from.short(), to.digest.short());
        tracing::error!(
            %service,
            from = %from_short,
            to = %to_short,
            reason,
            kept = kept.len(),
            "rolling back a version; the streams that only it can fold stay with it"
        );
        metrics::counter!("kontor_rollbacks_total", "service" => service.to_string()).increment(1);
        let happened = Happened::RolledBack { to, from, reason, note: None, kept };
        let swap = Swap { happened, deployed, candidates: Vec::new() };
        self.clone().swap(&mut deployments, swap, Caller::named(ACTOR)).await?;
        if let Some(returned) = deployments.running.get(service) {
            tokio::spawn(self.clone().keep_late((new.clone(), old.clone()), returned.clone(), read));
        }
        // Calls no longer fail, so there is time to move the sagas that have moved or begun in the meantime.
        if let Err(error) = self.move_sagas_back(&old).await {
            tracing::error!(
                %service,
                error = %Chain(&error),
                "failed to move open sagas after a rollback; they end on the version that was rolled back"
            );
        }
        Ok(())
    }

    async fn move_sagas_back(&self, to: &Component) -> Result<(), SagaError> {
        let rehearsed = self.deps.sagas.rehearse(to, |_, _| ()).await?;
        self.deps.sagas.move_over(&rehearsed, to.digest()).await.map(drop)
    }
}

fn gone(error: &PastError) -> Rejection {
    Rejection::new("nothing-to-roll-back", format!("It cannot be rolled back: {}.", Chain(error)))
}
