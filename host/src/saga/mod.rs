//! Sagas: business transactions over several aggregates that end by themselves, done or undone.
//!
//! | term | meaning |
//! |---|---|
//! | step | a command of the saga; its id follows from the saga's id and the step's name |
//! | undo | the compensation of a step that was done, by a command of its own |
//! | rejected | the answer to a step was no: the run returns the rejection and the saga unwinds |
//! | failed | a step was neither accepted nor rejected, in all its attempts |
//! | parked | the saga needs an operator to continue |
//!
//! A saga acts only through commands, by the same dispatch as every client. *Invariant:* everything that a
//! saga did is in its journal or will be: a run that is started again sends the same commands under the same
//! ids.

mod admission;
mod change;
mod completion;
mod driver;
mod dry_run;
pub(crate) mod entry;
mod error;
mod follow;
mod index;
mod inner;
pub(crate) mod journal;
mod lanes;
mod migration;
mod operate;
mod record;
mod replay;
mod retry;
mod roster;
mod runner;
mod sender;
pub mod timeline;
mod verdict;
mod wait_list;
mod worker;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;

use crate::aggregate::Submit;
use crate::clock::{SharedClock, Time};
use crate::cluster::Cluster;
use crate::deployed::Components;
use crate::error::Chain;
use crate::garbage::{Collection, Garbage};
use crate::log::EventLog;
use crate::model::{Caller, Digest, Rejection, SAGA, SagaId, SagaName, ServiceName, StreamId};
use crate::runtime::Ask;

pub use admission::Admission;
pub use error::{SagaError, SagasError};
pub use journal::{IllegalEntry, SagaState};
pub(crate) use migration::{ReplayOutcome, ReplayedSaga};
pub use operate::{Act, Filter, Overview, StateCount};
pub use record::RecordError;
pub use retry::{Retries, Retry};

use index::SagaHandle;
use inner::Inner;
use journal::Saga;
use timeline::StartedBy;

/// The longest wait of a request about a saga for the events that may have started it.
const CATCH_UP: Duration = Duration::from_secs(2);
/// The wait before the log or the index is used again after a failure.
const LOG_PAUSE: Duration = Duration::from_millis(500);

/// A saga as its client sees it.
#[derive(Clone, Debug, Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct SagaStatus {
    /// The saga's id.
    pub id: SagaId,
    /// The service that it belongs to.
    pub service: ServiceName,
    /// The saga's name: `place-order`.
    pub name: SagaName,
    /// The state that it is in.
    pub state: SagaState,
    /// The reason for unwinding, if it unwinds or unwound.
    pub reason: Option<Rejection>,
    /// The caller that started it, for which it acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<StartedBy>,
}

/// The parts of the host that sagas use.
pub struct Deps {
    /// The log with the triggers and the journals.
    pub log: Arc<dyn EventLog>,
    /// The receiver of the sagas' commands.
    pub commands: Arc<dyn Submit>,
    /// The receiver of the sagas' queries.
    pub ask: Arc<dyn Ask>,
    /// The components that the sagas run on.
    pub components: Arc<Components>,
    /// The clock by which sagas sleep.
    pub clock: SharedClock,
    /// The limits of retries.
    pub retries: Retries,
    /// The caller in the place of one that has not signed in.
    pub nobody: Caller,
    /// The hosts that run sagas of this log.
    pub cluster: Cluster,
}

/// Runs all sagas of the host.
pub struct Sagas {
    inner: Arc<Inner>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Sagas {
    /// Resumes all sagas that have not ended, and from then on runs every one that an event starts. The index
    /// is in the directory `data`.
    pub async fn start(data: &Path, deps: Deps) -> Result<Self, SagasError> {
        let inner = Arc::new(Inner::open(data, deps).await?);
        let tasks = vec![
            tokio::spawn(inner.clone().follow()),
            tokio::spawn(inner.clone().keep_time()),
            tokio::spawn(inner.clone().mend_parked()),
        ];
        Ok(Self { inner, tasks: Mutex::new(tasks) })
    }

    /// Returns the status of a saga, or `None` if no such saga was ever started. Knows all events that are in
    /// the log by now.
    pub async fn status(&self, id: &SagaId) -> Result<Option<SagaStatus>, SagaError> {
        if let Some(status) = self.journaled(id).await? {
            return Ok(Some(status));
        }
        // The event that started it may be on disk and not followed yet.
        self.inner.caught_up().await?;
        let begun = self.inner.roster().find(id).map(|handle| handle.status());
        if let Some(status) = begun {
            return Ok(Some(status));
        }
        // A saga that is over already has a journal; one that another host is to begin is only in the index.
        match self.journaled(id).await? {
            Some(status) => Ok(Some(status)),
            None => Ok(self.inner.index.find(id).await?.map(|known| known.handle.status())),
        }
    }

    /// Returns the status of a saga by its journal, or `None` if it has not begun.
    pub async fn journaled(&self, id: &SagaId) -> Result<Option<SagaStatus>, SagaError> {
        let Ok(stream) = StreamId::new(SAGA, id.as_str()) else {
            return Ok(None);
        };
        let (_, saga) = record::read(&*self.inner.deps.log, &stream).await?;
        Ok(saga.map(|saga| SagaStatus::of(id, &saga)))
    }

    /// Waits until a saga has ended or parked, for `limit` at most. Returns its status then.
    pub async fn wait(&self, id: &SagaId, limit: Duration) -> Result<Option<SagaStatus>, SagaError> {
        let mut waiter = self.inner.completions.wait(id);
        let status = self.journaled(id).await?;
        if status.as_ref().is_some_and(|status| status.state.settled()) {
            return Ok(status);
        }
        match tokio::time::timeout(limit, &mut waiter.status).await {
            Ok(Ok(status)) => Ok(Some(status)),
            // The time is over, or the host stops.
            _ => self.journaled(id).await,
        }
    }

    /// Returns the components of the sagas that have not ended, once all events that are in the log by now
    /// have started their sagas.
    pub(crate) async fn needed_components(&self) -> Result<HashSet<Digest>, SagaError> {
        self.inner.knows_the_past().await.map_err(|_| SagaError::ShuttingDown)?;
        self.inner.caught_up().await?;
        Ok(self.inner.index.digests().await?)
    }

    /// Collects the ended sagas of the index that were started before a time. Their journals stay in the log,
    /// and with them all that is known of a saga by its id.
    pub(crate) async fn collect(&self, before: Time, collection: Collection) -> Result<Garbage, SagaError> {
        Ok(self.inner.index.collect(operate::first_id_at(before), collection).await?)
    }

    /// Returns the current warning, a sentence.
    pub fn warning(&self) -> Option<String> {
        self.inner.warning.sentence()
    }

    /// Returns the number of sagas of a service that wait for their turn to run.
    pub fn waiting(&self, service: &str) -> usize {
        self.inner.lanes.waiting(service)
    }

    /// Stops after the commands in progress. Every saga continues when the host starts again.
    pub async fn close(&self) {
        self.inner.stop();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // Err: it has panicked, which the panic hook has reported.
            let _ = task.await;
        }
        let followed = *self.inner.followed.borrow();
        if let Err(error) = self.inner.index.write(Vec::new(), followed).await {
            tracing::warn!(
                error = %Chain(&error),
                "cannot write the index of sagas; the next start reads some events again"
            );
        }
        self.inner.runs.close();
        self.inner.runs.wait().await;
    }
}

impl SagaStatus {
    fn of(id: &SagaId, saga: &Saga) -> Self {
        let Saga { service, name, state, reason, .. } = saga;
        Self {
            id: id.clone(),
            service: service.clone(),
            name: name.clone(),
            state: *state,
            reason: reason.clone(),
            started_by: None,
        }
    }
}

impl SagaHandle {
    /// Returns the status of a saga that has no journal yet.
    fn status(&self) -> SagaStatus {
        SagaStatus {
            id: self.id.clone(),
            service: self.service.clone(),
            name: self.name.clone(),
            state: SagaState::Running,
            reason: None,
            started_by: None,
        }
    }
}
