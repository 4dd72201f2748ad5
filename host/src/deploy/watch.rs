//! Watches a new version for a while after the swap, and takes it back if it faults too often.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, interval};

use super::deployer::{DeployError, Deployer, RollbackRule};
use super::swap::Swap;
use crate::deployed::{Happened, Release};
use crate::model::Rejection;
use crate::runtime::{Component, Tally};

/// How often it is looked at. What faults in between has been felt.
const LOOK: Duration = Duration::from_millis(100);

impl RollbackRule {
    /// Whether so many faults are too many.
    fn is_broken(&self, Tally { calls, faults }: Tally) -> bool {
        faults >= self.faults.max(1) && faults * 100 > calls * self.percent
    }
}

impl Deployer {
    /// Boxed, because what takes a version back is a swap too, after which nothing is watched.
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
        let end = Instant::now() + rule.window;
        // What the gates have called does not count.
        let before = new.tally();
        let mut looks = interval(LOOK);
        while Instant::now() < end {
            looks.tick().await;
            let current = self.deps.registry.current();
            let service = &new.manifest().service;
            if current.service(service.as_str()).is_none_or(|running| running.digest() != new.digest()) {
                return;
            }
            let now = new.tally();
            let since = Tally { calls: now.calls - before.calls, faults: now.faults - before.faults };
            if rule.is_broken(since) {
                if let Err(error) = self.take_back(&new, &old, release, (since.faults, since.calls)).await {
                    tracing::error!(%service, %error, "a version that faults cannot be rolled back");
                }
                return;
            }
        }
    }

    /// Takes a version back that faults too often, in favour of the component and the release that ran before. `faults` of
    /// `calls` have failed since it runs.
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
            // Somebody was faster.
            return Ok(());
        }
        let deployed = self.deps.registry.current().with(std::slice::from_ref(old));
        let deployed = deployed.map_err(|why| Rejection::new("side-by-side", why))?;
        let reason = format!("{faults} of its first {calls} calls faulted");
        tracing::error!(%service, from = %from.short(), to = %to.digest.short(), reason, "a version is rolled back");
        metrics::counter!("kontor_rollbacks_total", "service" => service.to_string()).increment(1);
        let happened = Happened::RolledBack { to, from, reason, note: None };
        let swap = Swap { happened, deployed, candidates: Vec::new() };
        self.clone().swap(&mut deployments, swap, "kontor".into()).await?;
        // Calls fail no more, so there is time for the sagas that have moved over or begun meanwhile.
        let rehearsed = self.deps.sagas.rehearse(old).await?;
        self.deps.sagas.move_over(&rehearsed, old.digest()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_both_enough_faults_and_a_share_of_the_calls() {
        let rule = RollbackRule { percent: 5, faults: 5, ..RollbackRule::default() };
        for (faults, calls, broken) in
            [(0, 0, false), (4, 4, false), (5, 5, true), (5, 99, true), (5, 100, false), (50, 1_000, false)]
        {
            assert_eq!(rule.is_broken(Tally { calls, faults }), broken, "{faults} of {calls}");
        }
    }
}
