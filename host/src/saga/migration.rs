//! Open sagas and a new version of their service: the dry runs on it, and the move of those that replay
//! cleanly. One that is parked because its code was at fault continues on the new version by itself.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::entry::Entry;
use super::index::{Listed, SagaHandle};
use super::inner::Inner;
use super::journal::{Saga, SagaState};
use super::record::{self, RecordError, own_caller};
use super::runner::{self, RunError};
use super::sender::Relinquished;
use super::{SagaError, Sagas, dry_run};
use crate::error::Chain;
use crate::log::MAX_PAGE;
use crate::model::{Caller, Digest, SAGA, SagaId, StreamId, Version};
use crate::runtime::Component;

/// Journals that are replayed at the same time. Each takes an instance of the new component.
const AT_ONCE: usize = 8;
/// Sagas that are moved at the same time: the log commits their entries together.
const MOVES_AT_ONCE: usize = 256;

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
    /// left out: they need no component any more. `progress` gets the number of those that are
    /// replayed, and of all.
    pub(crate) async fn rehearse(
        &self,
        component: &Component,
        progress: impl Fn(u64, u64),
    ) -> Result<Vec<ReplayedSaga>, SagaError> {
        // Err: behind. A saga that is not known yet is just about to begin, on the component deployed then.
        let _ = self.inner.caught_up().await;
        let open = self.inner.index.open_of(component.manifest().service.as_str()).await?;
        let (mut done, of) = (0, open.len() as u64);
        progress(done, of);
        let rehearsals = open.into_iter().map(|handle| self.rehearse_one(Arc::new(handle), component));
        let rehearsals = stream::iter(rehearsals).buffered(AT_ONCE).inspect(|_| {
            done += 1;
            progress(done, of);
        });
        let rehearsed: Vec<_> = rehearsals.try_collect().await?;
        Ok(rehearsed.into_iter().flatten().collect())
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
        let moves = rehearsed.iter().cloned().map(|saga| self.move_one(saga, to));
        let moved: Vec<_> = stream::iter(moves).buffer_unordered(MOVES_AT_ONCE).collect().await;
        moved.into_iter().try_fold(0, |sum, moved| Ok(sum + usize::from(moved?)))
    }

    async fn move_one(
        &self,
        ReplayedSaga { handle, outcome }: ReplayedSaga,
        to: Digest,
    ) -> Result<bool, SagaError> {
        let ReplayOutcome::Clean(version) = outcome else { return Ok(false) };
        if !self.inner.roster().claim(&handle) {
            return Ok(false);
        }
        let acted = self.inner.move_to(&handle, to, version, (own_caller(&handle.id), None)).await;
        // One that sleeps or stays parked looks at its journal, and has nothing to do.
        self.inner.release(handle, matches!(acted, Ok(true))).await;
        Ok(acted?)
    }

    /// Runs the sagas that could not begin because their service was not deployed, and those that the
    /// deployed components mend. Returns at once.
    pub(crate) fn wake(&self) {
        let inner = self.inner.clone();
        tokio::spawn(async move { inner.run_unfinished().await });
        tokio::spawn(self.inner.clone().mend_parked());
    }
}

impl Inner {
    /// Writes that a claimed saga of this host moves to another component, if its journal is still at the
    /// version that was replayed. If it is parked by a fault, it continues. Returns false if it stays. `by`:
    /// the actor, and an operator's reason.
    async fn move_to(
        &self,
        handle: &SagaHandle,
        to: Digest,
        replayed: Version,
        (caller, reason): (Caller, Option<String>),
    ) -> Result<bool, RunError> {
        let moved = runner::act(self, handle, caller, |saga, at| {
            let here = |saga: &&Saga| self.deps.cluster.owns(handle.id.as_str(), saga.runner.as_ref());
            let saga = saga.filter(here).filter(|_| at == replayed).ok_or(())?;
            let resumed = saga.is_mendable().then_some(Entry::Resumed { reason: reason.clone() });
            Ok::<_, ()>([Entry::Moved { digest: to }].into_iter().chain(resumed).collect())
        });
        Ok(moved.await?.is_ok())
    }

    /// Moves a saga that is parked by a fault of its code to the deployed component of its service, if that
    /// is another one and replays its journal. Returns true if the saga continues. It must be active or
    /// claimed.
    pub(super) async fn mend(&self, handle: &SagaHandle, by: (Caller, Option<String>)) -> bool {
        match self.try_to_mend(handle, by).await {
            Ok(mended) => mended,
            Err(error) => {
                tracing::warn!(
                    saga = %handle.id, error = %Chain(&error),
                    "cannot move a parked saga to the deployed component; it stays parked"
                );
                false
            }
        }
    }

    async fn try_to_mend(&self, handle: &SagaHandle, by: (Caller, Option<String>)) -> Result<bool, RunError> {
        let stream = StreamId::new(SAGA, handle.id.as_str()).map_err(RecordError::from)?;
        let (_, saga) = record::read(&*self.deps.log, &stream).await?;
        let Some(saga) = saga.filter(Saga::is_mendable) else { return Ok(false) };
        let deployed = self.deps.components.current();
        let component = deployed.service(handle.service.as_str());
        let Some(component) = component.filter(|component| component.digest() != saga.digest) else {
            return Ok(false);
        };
        match dry_run::rehearse(self, handle, component).await? {
            Some((version, Ok(()))) => self.move_to(handle, component.digest(), version, by).await,
            _ => Ok(false),
        }
    }

    /// Continues the parked sagas that the deployed components mend.
    pub(super) async fn mend_parked(self: Arc<Self>) {
        // Err: the host is stopping.
        let _ = self.mend_all().await;
    }

    async fn mend_all(self: &Arc<Self>) -> Result<(), Relinquished> {
        self.knows_the_past().await?;
        let mut before = None;
        loop {
            let parked = || self.index.list(Some(SagaState::Parked), None, before.clone(), MAX_PAGE);
            let page = self.read_index("to find parked sagas", parked).await?;
            let Some(last) = page.last() else { return Ok(()) };
            before = Some(last.handle.id.to_string());
            for Listed { handle, .. } in page {
                let handle = Arc::new(handle);
                if self.roster().claim(&handle) {
                    let mended = self.mend(&handle, (own_caller(&handle.id), None)).await;
                    self.release(handle, mended).await;
                }
                if self.is_stopping() {
                    return Err(Relinquished);
                }
            }
        }
    }
}
