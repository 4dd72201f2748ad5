//! Open sagas and a new version of their service: the dry runs on it, and the move of those that replay
//! cleanly.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::entry::Entry;
use super::index::{SagaHandle, UnfinishedSaga};
use super::journal::Saga;
use super::record::actor;
use super::{SagaError, Sagas, dry_run, runner};
use crate::model::{Digest, SagaId, Version};
use crate::runtime::Component;

/// Journals that are replayed at the same time. Each takes an instance of the new component.
const AT_ONCE: usize = 8;

/// An open saga, and its dry run on a new version of its service.
#[derive(Clone, Debug)]
pub(crate) struct ReplayedSaga {
    handle: Arc<SagaHandle>,
    pub(crate) outcome: ReplayOutcome,
}

/// The result of a dry run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReplayOutcome {
    /// The new version replays the journal, whose version this is.
    Clean(Version),
    /// The new version diverges from the journal. The text says where.
    Diverged(String),
    /// The saga is running. It ends on the version that it is on.
    UnderWay,
}

impl ReplayedSaga {
    pub(crate) fn id(&self) -> &SagaId {
        &self.handle.id
    }

    pub(crate) fn name(&self) -> &str {
        self.handle.name.as_str()
    }
}

impl Sagas {
    /// Replays the journals of the open sagas of a component's service on it. Sagas that are being undone are
    /// left out: they need no component any more.
    pub(crate) async fn rehearse(&self, component: &Component) -> Result<Vec<ReplayedSaga>, SagaError> {
        // Err: behind. A saga that is not known yet is just about to begin, on the component deployed then.
        let _ = self.inner.caught_up().await;
        let open = self.inner.index.open_of(component.manifest().service.as_str()).await?;
        let rehearsals = open.into_iter().map(|handle| self.rehearse_one(Arc::new(handle), component));
        let found: Vec<_> = stream::iter(rehearsals).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn rehearse_one(
        &self,
        handle: Arc<SagaHandle>,
        component: &Component,
    ) -> Result<Option<ReplayedSaga>, SagaError> {
        if self.inner.roster().contains(&handle.id) {
            return Ok(Some(ReplayedSaga { handle, outcome: ReplayOutcome::UnderWay }));
        }
        let rehearsed = dry_run::rehearse(&self.inner, &handle, component).await?;
        Ok(rehearsed.map(|(version, replayed)| {
            let outcome = replayed.map_or_else(ReplayOutcome::Diverged, |()| ReplayOutcome::Clean(version));
            ReplayedSaga { handle, outcome }
        }))
    }

    /// Moves sagas of this host to another component: those that replay cleanly on it and have not continued
    /// since. Returns their number.
    pub(crate) async fn move_over(&self, rehearsed: &[ReplayedSaga], to: Digest) -> Result<usize, SagaError> {
        let mut moved = 0;
        for ReplayedSaga { handle, outcome } in rehearsed {
            let ReplayOutcome::Clean(version) = outcome else { continue };
            if !self.inner.roster().claim(handle) {
                continue;
            }
            let acted = runner::act(&self.inner, handle, actor(&handle.id), |saga, at| {
                let here =
                    |saga: &Saga| self.inner.deps.cluster.owns(handle.id.as_str(), saga.runner.as_ref());
                let same = saga.is_some_and(here) && at == *version;
                same.then_some(Entry::Moved { digest: to }).ok_or(())
            });
            let acted = acted.await;
            self.inner.release(handle.clone(), false).await;
            moved += usize::from(acted?.is_ok());
        }
        Ok(moved)
    }

    /// Runs the sagas that could not begin because their service was not deployed.
    pub(crate) async fn wake(&self) -> Result<(), SagaError> {
        for UnfinishedSaga { handle, runner, sleeps_until_ms } in self.inner.index.unfinished().await? {
            let here = self.inner.deps.cluster.owns(handle.id.as_str(), runner.as_ref());
            if here && sleeps_until_ms.is_none() && !self.inner.roster().contains(&handle.id) {
                let spawned = self.inner.spawn(Arc::new(handle), None).await;
                spawned.map_err(|_| SagaError::ShuttingDown)?;
            }
        }
        Ok(())
    }
}
