//! SagaHandle sagas and a new version of their service: which of them can go on with it, and to have them do so.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::entry::Entry;
use super::index::{SagaHandle, UnfinishedSaga};
use super::journal::Saga;
use super::operate::index_error;
use super::runner::{self, RunError};
use super::{Sagas, actor};
use crate::aggregate::CallError;
use crate::model::{Digest, SagaId, Version};
use crate::runtime::Component;

/// Journals that are replayed at one time.
const AT_ONCE: usize = 8;

/// An open saga, as a new version of its service finds it.
#[derive(Clone, Debug)]
pub(crate) struct ReplayedSaga {
    handle: Arc<SagaHandle>,
    pub(crate) outcome: ReplayOutcome,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReplayOutcome {
    /// The new version goes the way of the journal, whose version this is.
    Clean(Version),
    /// It goes another way.
    Diverged(String),
    /// Its steps are being taken. It ends on the version that it is on.
    UnderWay,
}

impl ReplayedSaga {
    pub(crate) fn id(&self) -> &SagaId {
        &self.handle.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.handle.name
    }
}

impl Sagas {
    /// Replays the journals of the open sagas of a component's service on it. Those that are being undone are left out: they
    /// need no component any more.
    pub(crate) async fn rehearse(&self, component: &Component) -> Result<Vec<ReplayedSaga>, CallError> {
        // Err: behind. What is not known yet is just about to begin, on whatever is deployed then.
        let _ = self.inner.caught_up().await;
        let handle = self.inner.index.open_of(&component.manifest().service).await.map_err(index_error)?;
        let rehearsals = handle.into_iter().map(|handle| self.rehearse_one(Arc::new(handle), component));
        let found: Vec<_> = stream::iter(rehearsals).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn rehearse_one(
        &self,
        handle: Arc<SagaHandle>,
        component: &Component,
    ) -> Result<Option<ReplayedSaga>, CallError> {
        if self.inner.under_way().contains_key(&handle.id) {
            return Ok(Some(ReplayedSaga { handle, outcome: ReplayOutcome::UnderWay }));
        }
        let rehearsed = runner::rehearse(&self.inner, &handle, component).await;
        Ok(rehearsed.map_err(runner::call_error)?.map(|(version, way)| {
            let outcome = way.map_or_else(ReplayOutcome::Diverged, |()| ReplayOutcome::Clean(version));
            ReplayedSaga { handle, outcome }
        }))
    }

    /// Has sagas go on with another component: those of this host that it was clean for, and that have not gone on
    /// meanwhile. Returns how many.
    pub(crate) async fn move_over(&self, rehearsed: &[ReplayedSaga], to: Digest) -> Result<usize, CallError> {
        let mut moved = 0;
        for ReplayedSaga { handle, outcome } in rehearsed {
            let ReplayOutcome::Clean(version) = outcome else { continue };
            if !self.inner.claim(handle) {
                continue;
            }
            let acted = runner::act(&self.inner, handle, actor(&handle.id), |saga, at| {
                let here =
                    |saga: &Saga| self.inner.deps.cluster.owns(handle.id.as_str(), saga.runner.as_ref());
                let same = saga.is_some_and(here) && at == *version;
                same.then_some(Entry::Moved { digest: to }).ok_or(())
            });
            let acted = acted.await;
            if self.inner.release(&handle.id) {
                // Err: the host is stopping, and the saga goes on when it starts again.
                let _ = self.inner.spawn(handle.clone(), None).await;
            }
            moved += usize::from(acted.map_err(runner::call_error)?.is_ok());
        }
        Ok(moved)
    }

    /// Takes up the sagas that could not begin because their service was not deployed.
    pub(crate) async fn wake(&self) -> Result<(), CallError> {
        for UnfinishedSaga { handle, runner, sleeps_until_ms } in
            self.inner.index.unfinished().await.map_err(index_error)?
        {
            let here = self.inner.deps.cluster.owns(handle.id.as_str(), runner.as_ref());
            if here && sleeps_until_ms.is_none() && !self.inner.under_way().contains_key(&handle.id) {
                self.inner
                    .spawn(Arc::new(handle), None)
                    .await
                    .map_err(|error| runner::call_error(RunError::Relinquished(error)))?;
            }
        }
        Ok(())
    }
}
