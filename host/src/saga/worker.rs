//! Runs each active saga on a task of its own, and keeps its place in the roster.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tracing::Instrument as _;

use super::change::Change;
use super::index::SagaHandle;
use super::inner::Inner;
use super::journal::SagaState;
use super::lanes::Turn;
use super::record::own_caller;
use super::roster::{Rest, Wake};
use super::runner::{self, RunError};
use super::verdict::Verdict;
use super::{LOG_PAUSE, SagaStatus};
use crate::error::Chain;
use crate::model::{Recorded, SagaId};

impl Inner {
    /// Runs a saga on a task of its own, as soon as it is its turn. A saga that runs already looks at the log
    /// once more. `new`: the trigger of a saga that has never run.
    pub(super) fn spawn(self: &Arc<Self>, handle: Arc<SagaHandle>, new: Option<Recorded>) {
        if self.roster().wake(&handle) == Wake::Start
            && let Some(turn) = self.lanes.enter(Turn { handle, new })
        {
            self.runs.spawn(self.clone().run_in_turn(turn));
        }
    }

    /// Runs a saga, and then those of its service that wait for their turn.
    async fn run_in_turn(self: Arc<Self>, turn: Turn) {
        let mut next = Some(turn);
        while let Some(Turn { handle, new }) = next.filter(|_| !self.is_stopping()) {
            // A run is not part of the request or of the event that wakes it: its span has no parent.
            let span = tracing::info_span!(parent: None, "saga", id = %handle.id, name = %handle.name);
            let run = AssertUnwindSafe(self.clone().run(handle.clone(), new).instrument(span));
            // Err: it has panicked, which the panic hook has reported.
            let _ = run.catch_unwind().await;
            next = self.lanes.leave(&handle.service);
        }
    }

    /// Releases a claimed saga. Runs it if `changed`, or if it was woken meanwhile.
    pub(super) async fn release(self: &Arc<Self>, handle: Arc<SagaHandle>, changed: bool) {
        let rest = self.roster().release(&handle.id);
        if changed || rest == Rest::LookAgain {
            self.spawn(handle, None);
        }
    }

    async fn run(self: Arc<Self>, handle: Arc<SagaHandle>, mut new: Option<Recorded>) {
        loop {
            self.roster().begin(&handle.id);
            match runner::run(&self, &handle, new.take()).await {
                Ok(status) => match self.rest(&handle, &status).await {
                    Rest::LookAgain => {}
                    Rest::Asleep => return,
                },
                Err(error) => match self.recover(&handle, &error).await {
                    Rest::LookAgain => {}
                    Rest::Asleep => return,
                },
            }
        }
    }

    /// Ends a run without an error, unless there is something left to do.
    async fn rest(self: &Arc<Self>, handle: &Arc<SagaHandle>, status: &SagaStatus) -> Rest {
        if !status.state.settled() {
            return self.roster().rest(&handle.id);
        }
        // Its service may have got another component since it started.
        if status.state == SagaState::Parked && self.mend(handle, (own_caller(&handle.id), None)).await {
            return Rest::LookAgain;
        }
        self.roster().remove(&handle.id);
        self.report(status);
        Rest::Asleep
    }

    /// Draws the consequence of an error that has ended a run.
    async fn recover(self: &Arc<Self>, handle: &Arc<SagaHandle>, error: &RunError) -> Rest {
        let SagaHandle { id, name, .. } = &**handle;
        let (verdict, parked) = match Verdict::of(error) {
            Verdict::Park => match runner::park(self, handle, error).await {
                Ok(status) => (Verdict::Park, Some(status)),
                Err(parking) => (Verdict::of_parking(&parking), None),
            },
            verdict => (verdict, None),
        };
        let cause = Chain(error).to_string();
        match (verdict, parked) {
            (Verdict::Relinquish, _) => return self.roster().rest(id),
            (Verdict::Park, Some(status)) => return self.rest(handle, &status).await,
            (Verdict::ReadAgain, _) => {
                tracing::debug!(
                    saga = %id, error = cause,
                    "another host wrote to the journal first; reading it again"
                );
            }
            (Verdict::Passing, _) => {
                tracing::error!(
                    saga = %id, %name, error = cause,
                    "the saga cannot continue now; trying again"
                );
                if self.pause(LOG_PAUSE).await.is_err() {
                    self.roster().remove(id);
                    return Rest::Asleep;
                }
            }
            (Verdict::Park | Verdict::Stuck, _) => {
                self.note_stuck(id, error).await;
                tracing::error!(
                    saga = %id, %name, error = cause,
                    "saga is stuck; it is tried again after the next deployment"
                );
                self.roster().remove(id);
                return Rest::Asleep;
            }
        }
        Rest::LookAgain
    }

    /// Writes to the index why a saga cannot run, which its journal cannot say. A deployment or a start of
    /// the host runs it again.
    async fn note_stuck(&self, id: &SagaId, error: &RunError) {
        // Its row must be there. Err: behind; then the saga is tried again without the reason being shown.
        let _ = self.caught_up().await;
        let stuck = Change::Stuck { id: id.clone(), why: Chain(error).to_string() };
        let position = *self.followed.borrow();
        if let Err(error) = self.index.write(vec![stuck], position).await {
            tracing::error!(
                saga = %id, error = %Chain(&error),
                "cannot write why the saga is stuck; `kontor sagas` does not show it"
            );
        }
    }

    /// Reports a saga that has ended or parked to its waiting callers, in the metrics and in the host's log.
    fn report(&self, status: &SagaStatus) {
        let SagaStatus { id, name, state, .. } = status;
        metrics::counter!("kontor_sagas_settled_total", "saga" => name.to_string(), "state" => state.as_str())
            .increment(1);
        if *state == SagaState::Parked {
            tracing::error!(saga = %id, %name, "saga parked; it needs an operator");
        } else {
            tracing::debug!(saga = %id, %name, state = state.as_str(), "saga ended");
        }
        self.completions.notify(status);
    }
}
