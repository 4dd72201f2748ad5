//! The state that the API and the workers of the sagas share.

use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;

use super::completion::Completions;
use super::error::{SagaError, SagasError};
use super::index::Index;
use super::lanes::Lanes;
use super::roster::Roster;
use super::sender::Relinquished;
use super::wait_list::WaitList;
use super::{CATCH_UP, Deps, LOG_PAUSE};
use crate::cluster::Lease;
use crate::error::Chain;
use crate::model::{LogMark, Position, SagaId};
use crate::warning::Warning;

pub(super) struct Inner {
    pub(super) deps: Deps,
    pub(super) index: Index,
    /// The sagas that sleep or wait for an event.
    pub(super) wait_list: WaitList,
    /// The sagas that run here, or are about to.
    roster: Mutex<Roster>,
    /// The callers that wait for the end of a saga.
    pub(super) completions: Completions,
    /// Bounds the sagas that run at the same time.
    pub(super) lanes: Lanes,
    /// Set while the index cannot be written.
    pub(super) warning: Warning,
    /// The tasks of those that run.
    pub(super) runs: TaskTracker,
    /// The mark of the last event that has started and woken its sagas, and the index says so.
    pub(super) followed: watch::Sender<LogMark>,
    /// Notified when somebody waits for the index.
    pub(super) hurry: Notify,
    /// The end of the log when the host started.
    pub(super) head_at_start: Position,
    /// True when the host is stopping.
    stopping: watch::Sender<bool>,
}

impl Inner {
    /// Opens the index of sagas in the directory `data`.
    pub(super) async fn open(data: &Path, deps: Deps) -> Result<Self, SagasError> {
        let index = Index::open(data, &*deps.log).await?;
        let mark = index.mark().await?;
        Ok(Self {
            head_at_start: *deps.log.head().borrow(),
            deps,
            index,
            wait_list: WaitList::default(),
            roster: Mutex::default(),
            completions: Completions::default(),
            lanes: Lanes::default(),
            warning: Warning::new("sagas do not start, because their index cannot be written"),
            runs: TaskTracker::new(),
            followed: watch::Sender::new(mark),
            hurry: Notify::new(),
            stopping: watch::Sender::new(false),
        })
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all workers to stop.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the host is stopping.
    pub(super) async fn stopped(&self) {
        // Err cannot be: the sender is in here.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Fails if the next step of a running saga is not to be taken here. `lease`: the one under which its
    /// journal was read.
    pub(super) fn check_ownership(&self, id: &SagaId, lease: Option<Lease>) -> Result<(), Relinquished> {
        let held = lease.is_some() && self.deps.cluster.lease() == lease;
        if self.is_stopping() || !held || self.roster().is_lost(id) { Err(Relinquished) } else { Ok(()) }
    }

    /// Waits for a time. Fails if the host is stopping.
    pub(super) async fn pause(&self, time: Duration) -> Result<(), Relinquished> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(Relinquished),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Reads the index of sagas, again and again until it can be read. Fails if the host is stopping.
    /// `purpose`: such as "to wake a saga".
    pub(super) async fn read_index<T, F>(
        &self,
        purpose: &str,
        read: impl Fn() -> F,
    ) -> Result<T, Relinquished>
    where
        F: Future<Output = rusqlite::Result<T>>,
    {
        loop {
            match read().await {
                Ok(found) => return Ok(found),
                Err(error) => tracing::error!(
                    error = %Chain(&error),
                    "cannot read the index of sagas; trying again {purpose}"
                ),
            }
            self.pause(LOG_PAUSE).await?;
        }
    }

    /// Waits until all events that were in the log at the start have started and woken their sagas. Fails if
    /// the host is stopping.
    pub(super) async fn knows_the_past(&self) -> Result<(), Relinquished> {
        let mut followed = self.followed.subscribe();
        tokio::select! {
            () = self.stopped() => Err(Relinquished),
            // Err cannot be: the sender is in here.
            _ = followed.wait_for(|mark| mark.position >= self.head_at_start) => Ok(()),
        }
    }

    /// Waits until all events that are in the log by now have started and woken their sagas, and are in the
    /// index.
    pub(super) async fn caught_up(&self) -> Result<(), SagaError> {
        let head = *self.deps.log.head().borrow();
        let mut followed = self.followed.subscribe();
        self.hurry.notify_one();
        let caught_up = tokio::time::timeout(CATCH_UP, followed.wait_for(|mark| mark.position >= head)).await;
        match caught_up {
            Ok(Ok(_)) => Ok(()),
            _ => Err(SagaError::Busy { queue: "the queue of sagas" }),
        }
    }
}
