//! Open sagas and a new version of their service: which of them can go on with it, and to have them do so.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::entry::Entry;
use super::index::{Open, Unended};
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
pub(crate) struct Rehearsed {
    open: Arc<Open>,
    pub(crate) course: Course,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Course {
    /// The new version goes the way of the journal, whose version this is.
    Clean(Version),
    /// It goes another way.
    Diverged(String),
    /// Its steps are being taken. It ends on the version that it is on.
    UnderWay,
}

impl Rehearsed {
    pub(crate) fn id(&self) -> &SagaId {
        &self.open.id
    }

    pub(crate) fn name(&self) -> &str {
        self.open.name.as_str()
    }
}

impl Sagas {
    /// Replays the journals of the open sagas of a component's service on it. Those that are being undone are left out: they
    /// need no component any more.
    pub(crate) async fn rehearse(&self, component: &Component) -> Result<Vec<Rehearsed>, CallError> {
        // Err: behind. What is not known yet is just about to begin, on whatever is deployed then.
        let _ = self.shared.caught_up().await;
        let open =
            self.shared.index.open_of(component.manifest().service.as_str()).await.map_err(index_error)?;
        let rehearsals = open.into_iter().map(|open| self.rehearse_one(Arc::new(open), component));
        let found: Vec<_> = stream::iter(rehearsals).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn rehearse_one(
        &self,
        open: Arc<Open>,
        component: &Component,
    ) -> Result<Option<Rehearsed>, CallError> {
        if self.shared.under_way().contains_key(&open.id) {
            return Ok(Some(Rehearsed { open, course: Course::UnderWay }));
        }
        let rehearsed = runner::rehearse(&self.shared, &open, component).await;
        Ok(rehearsed.map_err(runner::call_error)?.map(|(version, way)| {
            let course = way.map_or_else(Course::Diverged, |()| Course::Clean(version));
            Rehearsed { open, course }
        }))
    }

    /// Has sagas go on with another component: those of this host that it was clean for, and that have not gone on
    /// meanwhile. Returns how many.
    pub(crate) async fn move_over(&self, rehearsed: &[Rehearsed], to: Digest) -> Result<usize, CallError> {
        let mut moved = 0;
        for Rehearsed { open, course } in rehearsed {
            let Course::Clean(version) = course else { continue };
            if !self.shared.claim(open) {
                continue;
            }
            let acted = runner::act(&self.shared, open, actor(&open.id), |saga, at| {
                let here = |saga: &Saga| self.shared.deps.nodes.owns(open.id.as_str(), saga.runner.as_ref());
                let same = saga.is_some_and(here) && at == *version;
                same.then_some(Entry::Moved { digest: to }).ok_or(())
            });
            let acted = acted.await;
            if self.shared.let_go(&open.id) {
                // Err: the host is stopping, and the saga goes on when it starts again.
                let _ = self.shared.spawn(open.clone(), None).await;
            }
            moved += usize::from(acted.map_err(runner::call_error)?.is_ok());
        }
        Ok(moved)
    }

    /// Takes up the sagas that could not begin because their service was not deployed.
    pub(crate) async fn wake(&self) -> Result<(), CallError> {
        for Unended { open, runner, sleeps_until_ms } in
            self.shared.index.unended().await.map_err(index_error)?
        {
            let here = self.shared.deps.nodes.owns(open.id.as_str(), runner.as_ref());
            if here && sleeps_until_ms.is_none() && !self.shared.under_way().contains_key(&open.id) {
                self.shared
                    .spawn(Arc::new(open), None)
                    .await
                    .map_err(|error| runner::call_error(RunError::NotHere(error)))?;
            }
        }
        Ok(())
    }
}
