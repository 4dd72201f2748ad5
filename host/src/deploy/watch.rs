//! Watches a new version for a while after the swap, and rolls it back if it faults too often.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::interval;

use super::deployer::Deployer;
use super::error::DeployError;
use super::rules::RollbackRule;
use super::swap::Swap;
use crate::clock::Stopwatch;
use crate::deployed::{Happened, Release};
use crate::error::Chain;
use crate::model::Rejection;
use crate::runtime::{Component, Tally};

/// The interval between two checks. It is short, because callers notice the faults in between.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl RollbackRule {
    /// Returns whether these are too many faults.
    fn is_broken(&self, Tally { calls, faults }: Tally) -> bool {
        faults >= self.faults.max(1) && faults * 100 > calls * self.percent
    }
}

impl Deployer {
    /// Watches a new version. Boxed, because a rollback is a swap too, and a swap starts a watch.
    pub(super) fn watch(
        self: Arc<Self>,
        new: Component,
        old: Component,
        release: Release,
    ) -> BoxFuture<'static, ()> {
        self.watch_for_faults(new, old, release).boxed()
    }

    async fn watch_for_faults(self: Arc<Self>, new: Component, old: Component, release: Release) {
        let rule = self.deps.rules.rollback;
        let (since_swap, window) = (Stopwatch::start(), rule.window);
        // The calls of the gates do not count.
        let before = new.tally();
        let mut checks = interval(CHECK_INTERVAL);
        while since_swap.elapsed() < window {
            checks.tick().await;
            let current = self.deps.registry.current();
            let service = &new.manifest().service;
            if current.service(service.as_str()).is_none_or(|running| running.digest() != new.digest()) {
                return;
            }
            let now = new.tally();
            let since = Tally { calls: now.calls - before.calls, faults: now.faults - before.faults };
            if rule.is_broken(since) {
                if let Err(error) = self.take_back(&new, &old, release, (since.faults, since.calls)).await {
                    tracing::error!(
                        %service,
                        error = %Chain(&error),
                        "failed to roll back a faulty version; it keeps running"
                    );
                }
                return;
            }
        }
    }

    /// Rolls back a version that faults too often, to the component and the release that ran before. `faults`
    /// of its `calls` since the swap have failed.
    async fn take_back(
        self: &Arc<Self>,
        new: &Component,
        old: &Component,
        to: Release,
        (faults, calls): (u64, u64),
    ) -> Result<(), DeployError> {
        let mut deployments = self.deployments.lock().await;
        let service = &new.manifest().service;
        let from = new.digest();
        if deployments.running.get(service).is_none_or(|running| running.release.digest != from) {
            // Another deployment has replaced the version.
            return Ok(());
        }
        let deployed = self.deps.registry.current().with(std::slice::from_ref(old));
        let deployed = deployed.map_err(|error| Rejection::new("side-by-side", error.to_string()))?;
        let reason = format!("{faults} of its first {calls} calls faulted");
        let (from_short, to_short) = (from.short(), to.digest.short());
        tracing::error!(%service, from = %from_short, to = %to_short, reason, "rolling back a version");
        metrics::counter!("kontor_rollbacks_total", "service" => service.to_string()).increment(1);
        let happened = Happened::RolledBack { to, from, reason, note: None };
        let swap = Swap { happened, deployed, candidates: Vec::new() };
        self.clone().swap(&mut deployments, swap, "kontor".into()).await?;
        // Calls no longer fail, so there is time to move the sagas that have moved or begun in the meantime.
        let rehearsed = self.deps.sagas.rehearse(old).await?;
        self.deps.sagas.move_over(&rehearsed, old.digest()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_takes_both_enough_faults_and_a_share_of_the_calls() {
        let rule = RollbackRule { percent: 5, faults: 5, ..RollbackRule::default() };
        for (faults, calls, broken) in
            [(0, 0, false), (4, 4, false), (5, 5, true), (5, 99, true), (5, 100, false), (50, 1_000, false)]
        {
            assert_eq!(rule.is_broken(Tally { calls, faults }), broken, "{faults} of {calls}");
        }
    }
}
