//! Follows the log: starts and wakes the sagas of its events, and notifies the callers that wait for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::change::Change;
use super::index::{Listed, SagaHandle, UnfinishedSaga};
use super::inner::Inner;
use super::sender::Relinquished;
use super::{LOG_PAUSE, SagaStatus, entry, record};
use crate::clock::deadline_after;
use crate::deployed::FollowedTriggers;
use crate::error::Chain;
use crate::log::Subscription;
use crate::model::{LogMark, Position, Recorded, SAGA, SagaId, StreamId};

/// The longest time for which the index is behind the sagas, unless somebody waits for it: under load, each
/// transaction has the changes of many commits.
const LINGER: Duration = Duration::from_millis(10);
/// The number of changes that are written together.
const MAX_CHANGES: usize = 1_000;

/// The follower of the log. It writes the index only, until it has reached the end that the log had at the
/// start: so a lost index is rebuilt without a run of the sagas that have ended.
struct Follower {
    inner: Arc<Inner>,
    /// The sagas that the next event starts.
    triggers: FollowedTriggers,
    /// True once the unfinished sagas run.
    live: bool,
    unwritten: Unwritten,
}

/// The changes that have been followed and are not in the index yet.
#[derive(Default)]
struct Unwritten {
    changes: Vec<Change>,
    mark: LogMark,
    /// The time at which it is written at the latest; `None` if there is nothing.
    due: Option<Instant>,
}

impl Unwritten {
    /// Resolves when it is to be written.
    async fn due(due: Option<Instant>, inner: &Inner) {
        match due {
            None => std::future::pending().await,
            Some(due) => tokio::select! {
                () = sleep_until(due) => {}
                () = inner.hurry.notified() => {}
            },
        }
    }
}

impl Inner {
    /// Follows the log from the end of the index on: runs the unfinished sagas, then those that events start
    /// or wake.
    pub(super) async fn follow(self: Arc<Self>) {
        let after = self.followed.borrow().position;
        let triggers = loop {
            match FollowedTriggers::at(&*self.deps.log, after).await {
                Ok(triggers) => break triggers,
                Err(error) => unreadable(&error),
            }
            if self.pause(LOG_PAUSE).await.is_err() {
                return;
            }
        };
        let subscription = Subscription::new(self.deps.log.clone(), after);
        let mut follower = Follower { inner: self, triggers, live: false, unwritten: Unwritten::default() };
        // Err: the host is stopping.
        let _ = follower.follow(subscription).await;
    }
}

fn unreadable(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error = %Chain(error), "cannot read the log; no sagas start until it can be read");
}

impl Follower {
    /// Returns when the log is closed.
    async fn follow(&mut self, mut subscription: Subscription) -> Result<(), Relinquished> {
        let inner = self.inner.clone();
        let mut members = inner.deps.cluster.changed();
        let followed = inner.followed.borrow().position;
        self.go_live(followed).await?;
        loop {
            let page = tokio::select! {
                biased;
                () = inner.stopped() => return Err(Relinquished),
                () = Unwritten::due(self.unwritten.due, &inner) => {
                    self.write().await?;
                    continue;
                }
                Ok(()) = members.changed(), if self.live => {
                    self.write().await?;
                    let taken = inner.run_unfinished().await?;
                    if taken > 0 {
                        tracing::info!(sagas = taken, "taking over the sagas that this host owns now");
                    }
                    continue;
                }
                page = subscription.next() => page,
            };
            match page {
                Ok(Some(page)) => self.apply(&page).await?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    unreadable(&error);
                    inner.pause(LOG_PAUSE).await?;
                }
            }
        }
    }

    /// Runs the unfinished sagas once the log has been followed to the end that it had at the start.
    async fn go_live(&mut self, followed: Position) -> Result<(), Relinquished> {
        if !self.live && followed >= self.inner.head_at_start {
            self.live = true;
            let resumed = self.inner.run_unfinished().await?;
            if resumed > 0 {
                tracing::info!(sagas = resumed, "resuming the sagas that have not ended");
            }
        }
        Ok(())
    }

    /// Starts and wakes the sagas of a page of events, and notes that for the index.
    async fn apply(&mut self, page: &[Recorded]) -> Result<(), Relinquished> {
        let inner = self.inner.clone();
        let (mut changes, mut resumed) = (std::mem::take(&mut self.unwritten.changes), Vec::new());
        for event in page {
            if event.stream.aggregate() == SAGA {
                changes.extend(inner.apply_entry(event, &mut resumed));
                continue;
            }
            let granted = loop {
                match self.triggers.apply(event) {
                    Ok(granted) => break granted,
                    Err(error) => unreadable(&error),
                }
                inner.pause(LOG_PAUSE).await?;
            };
            // A saga may begin on a component before this host runs its deployment.
            granted.into_iter().for_each(|grants| inner.deps.components.grant(grants));
            self.start_sagas_of(event, &mut changes);
            for sleeper in inner.wait_list.happened(&event.stream, event.name.as_str()) {
                inner.spawn(sleeper, None);
            }
        }
        let Some(last) = page.last() else { return Ok(()) };
        let due = self.unwritten.due.take().unwrap_or_else(|| deadline_after(LINGER));
        let may_wait = self.live && resumed.is_empty() && !changes.is_empty() && changes.len() < MAX_CHANGES;
        self.unwritten = Unwritten { changes, mark: last.mark(), due: Some(due) };
        if may_wait {
            return Ok(());
        }
        self.write().await?;
        self.go_live(last.position).await?;
        if self.live && inner.deps.cluster.me().is_some() {
            inner.wake_resumed(resumed).await?;
        }
        Ok(())
    }

    /// Writes to the index what is not written yet.
    async fn write(&mut self) -> Result<(), Relinquished> {
        let inner = self.inner.clone();
        let Unwritten { changes, mark, due: Some(_) } = std::mem::take(&mut self.unwritten) else {
            return Ok(());
        };
        // No later position may be written before these triggers are: a restart would not look for them
        // again.
        while let Err(error) = inner.index.apply(changes.clone(), mark).await {
            inner.warning.set(&error);
            inner.pause(LOG_PAUSE).await?;
        }
        inner.warning.clear();
        inner.followed.send_replace(mark);
        Ok(())
    }

    /// Starts the sagas of which an event is the trigger, if this host owns them.
    fn start_sagas_of(&self, event: &Recorded, changes: &mut Vec<Change>) {
        let triggers = self.triggers.triggers();
        for (id, trigger) in triggers.started_by(&event.stream, &event.name, event.index, &event.meta) {
            let handle = Arc::new(SagaHandle {
                id,
                trigger: entry::Trigger { stream: event.stream.clone(), version: event.version },
                service: trigger.service.clone(),
                name: trigger.saga.clone(),
                digest: trigger.digest,
            });
            changes.push(Change::Started { handle: handle.clone() });
            if self.live && self.inner.deps.cluster.owns(handle.id.as_str(), None) {
                // An earlier process may have run it before the start. Another host may have too, but its
                // journal is then in the log, and no command is sent before this one's is.
                let new = event.position > self.inner.head_at_start;
                self.inner.spawn(handle, new.then(|| event.clone()));
            }
        }
    }
}

impl Inner {
    /// Applies an entry of a journal. Returns its change to the index.
    fn apply_entry(self: &Arc<Self>, event: &Recorded, resumed: &mut Vec<SagaId>) -> Option<Change> {
        let change = Change::of(event);
        match &change {
            Some(Change::Resumed { id }) => resumed.push(id.clone()),
            Some(Change::Taken { id, node }) if Some(node) != self.deps.cluster.me() => {
                self.roster().lose(id);
                if event.position > self.head_at_start {
                    self.deps.cluster.seen_in_log(node);
                }
            }
            Some(change) => self.notify_waiting(change),
            None => {}
        }
        change
    }

    /// Runs sagas that an operator has acted on, on any host.
    async fn wake_resumed(self: &Arc<Self>, resumed: Vec<SagaId>) -> Result<(), Relinquished> {
        for id in resumed {
            let found = self.read_index("to wake a saga", || self.index.find(&id)).await?;
            if let Some(Listed { handle, .. }) = found {
                self.spawn(Arc::new(handle), None);
            }
        }
        Ok(())
    }

    /// Runs the unfinished sagas that this host owns, except those that sleep. Returns the number of those
    /// that did not run here before.
    pub(super) async fn run_unfinished(self: &Arc<Self>) -> Result<usize, Relinquished> {
        let purpose = "to run those that have not ended";
        let mut unfinished = self.read_index(purpose, || self.index.unfinished()).await?;
        unfinished.retain(|saga| !self.sleeps(saga));
        let owned = unfinished.into_iter().filter_map(|UnfinishedSaga { handle, runner, .. }| {
            self.deps.cluster.owns(handle.id.as_str(), runner.as_ref()).then(|| Arc::new(handle))
        });
        let owned: Vec<_> = owned.collect();
        let new = owned.iter().filter(|handle| self.roster().enqueue(handle)).count();
        for handle in owned {
            self.spawn(handle, None);
        }
        Ok(new)
    }

    /// Returns whether a saga sleeps here, and adds it to the wait list if it does.
    fn sleeps(&self, UnfinishedSaga { handle, runner, sleeps_until_ms }: &UnfinishedSaga) -> bool {
        if self.wait_list.has(&handle.id) {
            return true;
        }
        let until_ms = sleeps_until_ms.filter(|_| runner.as_ref() == self.deps.cluster.me());
        let asleep = until_ms.filter(|_| !self.roster().contains(&handle.id));
        asleep.map(|until_ms| self.wait_list.add(Arc::new(handle.clone()), until_ms, None)).is_some()
    }

    /// Wakes the sagas whose time is over.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let due = async {
                match self.wait_list.next_ms() {
                    Some(time_ms) => self.deps.clock.until(time_ms).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stopped() => return,
                () = self.wait_list.changed.notified() => continue,
                () = due => {}
            }
            for sleeper in self.wait_list.due(self.deps.clock.now_ms()) {
                self.spawn(sleeper, None);
            }
        }
    }

    /// Notifies the callers that wait here for a saga that another host runs.
    fn notify_waiting(self: &Arc<Self>, change: &Change) {
        let id = match change {
            Change::Moved { id, state } if state.settled() => id,
            Change::Parked { id, .. } => id,
            _ => return,
        };
        let alone = self.deps.cluster.me().is_none();
        if alone || !self.completions.has(id) || self.roster().contains(id) {
            return;
        }
        let (inner, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let Ok(stream) = StreamId::new(SAGA, id.as_str()) else { return };
            // Err: the callers wait until their own limit and then read the journal. A saga that is not
            // settled has been resumed meanwhile.
            if let Ok((_, Some(saga))) = record::read(&*inner.deps.log, &stream).await
                && saga.state.settled()
            {
                inner.completions.notify(&SagaStatus::of(&id, &saga));
            }
        });
    }
}
