//! Follows the log: starts and wakes the sagas of its events, and notifies the callers that wait for them.

use std::collections::HashSet;
use std::sync::Arc;

use super::index::{Change, Listed, SagaHandle, UnfinishedSaga};
use super::inner::Inner;
use super::sender::Relinquished;
use super::{LOG_PAUSE, SagaStatus, record};
use crate::deployed::Deployed;
use crate::error::Chain;
use crate::log::Subscription;
use crate::model::{Recorded, SAGA, SagaId, StreamId};

impl Inner {
    /// Runs the unfinished sagas, then those that the log's events start or wake.
    pub(super) async fn follow(
        self: Arc<Self>,
        unfinished: Vec<Arc<SagaHandle>>,
        mut subscription: Subscription,
    ) {
        if !unfinished.is_empty() {
            tracing::info!(sagas = unfinished.len(), "resuming the sagas that have not ended");
        }
        for handle in unfinished {
            if self.spawn(handle, None).await.is_err() {
                return;
            }
        }
        let mut members = self.deps.cluster.changed();
        loop {
            let page = tokio::select! {
                biased;
                () = self.stopped() => return,
                Ok(()) = members.changed() => {
                    if self.take_over().await.is_err() {
                        return;
                    }
                    continue;
                }
                page = subscription.next() => page,
            };
            match page {
                Ok(Some(page)) if self.apply(&page).await.is_ok() => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(
                        error = %Chain(&error),
                        "cannot read the log; new sagas do not start until it can be read"
                    );
                    tokio::time::sleep(LOG_PAUSE).await;
                }
            }
        }
    }

    /// Starts and wakes the sagas of a page of events, and writes that to the index.
    async fn apply(self: &Arc<Self>, page: &[Recorded]) -> Result<(), Relinquished> {
        let deployed = self.deps.components.current();
        let (mut changes, mut resumed) = (Vec::new(), Vec::new());
        for event in page {
            if event.stream.aggregate() == SAGA {
                changes.extend(self.apply_entry(event, &mut resumed));
                continue;
            }
            self.start_sagas_of(event, &deployed, &mut changes).await?;
            for sleeper in self.wait_list.happened(&event.stream, event.name.as_str()) {
                self.spawn(sleeper, None).await?;
            }
        }
        let Some(last) = page.last() else { return Ok(()) };
        // No later position may be written before these triggers are: a restart would not look for them
        // again.
        while let Err(error) = self.index.apply(changes.clone(), last.position).await {
            tracing::error!(
                error = %Chain(&error),
                "cannot write the index of sagas; no further sagas start until it can be written"
            );
            self.pause(LOG_PAUSE).await?;
        }
        self.followed.send_replace(last.position);
        if self.deps.cluster.me().is_some() {
            self.wake_resumed(resumed).await?;
        }
        Ok(())
    }

    /// Applies an entry of a journal. Returns its change to the index.
    fn apply_entry(self: &Arc<Self>, event: &Recorded, resumed: &mut Vec<SagaId>) -> Option<Change> {
        let change = Change::of(event);
        match &change {
            Some(Change::Resumed { id }) => resumed.push(id.clone()),
            Some(Change::Taken { id, node }) if Some(node) != self.deps.cluster.me() => {
                self.roster().lose(id);
                if event.position > self.started_at {
                    self.deps.cluster.seen_in_log(node);
                }
            }
            Some(change) => self.notify_waiting(change),
            None => {}
        }
        change
    }

    /// Starts the sagas of which an event is the trigger, if this host owns them.
    async fn start_sagas_of(
        self: &Arc<Self>,
        event: &Recorded,
        deployed: &Deployed,
        changes: &mut Vec<Change>,
    ) -> Result<(), Relinquished> {
        for (id, trigger) in deployed.started_by(&event.stream, event.name.as_str(), event.index, &event.meta)
        {
            let handle = Arc::new(SagaHandle {
                id,
                trigger: event.position,
                service: trigger.component.manifest().service.clone(),
                name: trigger.saga.clone(),
            });
            changes.push(Change::Triggered { handle: handle.clone(), stream: event.stream.to_string() });
            if self.deps.cluster.owns(handle.id.as_str(), None) {
                // An earlier process may have run it: then its journal is read first.
                let new = (event.position > self.new_after).then(|| event.clone());
                self.spawn(handle, new).await?;
            }
        }
        Ok(())
    }

    /// Runs sagas that an operator has acted on, on any host.
    async fn wake_resumed(self: &Arc<Self>, resumed: Vec<SagaId>) -> Result<(), Relinquished> {
        for id in resumed {
            let found = loop {
                match self.index.find(&id).await {
                    Ok(found) => break found,
                    Err(error) => {
                        tracing::error!(
                            saga = %id, error = %Chain(&error),
                            "cannot read the index of sagas; trying again to wake saga"
                        );
                    }
                }
                self.pause(LOG_PAUSE).await?;
            };
            if let Some(Listed { handle, .. }) = found {
                self.spawn(Arc::new(handle), None).await?;
            }
        }
        Ok(())
    }

    /// Runs the sagas that this host owns now, after a change of the cluster's members.
    async fn take_over(self: &Arc<Self>) -> Result<(), Relinquished> {
        let unfinished = loop {
            match self.index.unfinished().await {
                Ok(unfinished) => break unfinished,
                Err(error) => {
                    tracing::error!(
                        error = %Chain(&error),
                        "cannot read the index of sagas; trying again to take over sagas"
                    );
                }
            }
            self.pause(LOG_PAUSE).await?;
        };
        let mut taken = 0;
        for UnfinishedSaga { handle, runner, .. } in unfinished {
            if self.deps.cluster.owns(handle.id.as_str(), runner.as_ref()) && !self.wait_list.has(&handle.id)
            {
                taken += usize::from(!self.roster().contains(&handle.id));
                self.spawn(Arc::new(handle), None).await?;
            }
        }
        if taken > 0 {
            tracing::info!(sagas = taken, "taking over the sagas that this host owns now");
        }
        Ok(())
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
                if self.spawn(sleeper, None).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Removes the stored components that no saga needs any more, once all sagas are known.
    pub(super) async fn clear_components(self: Arc<Self>) {
        if self.knows_the_past().await.is_err() {
            return;
        }
        match self.index.digests().await {
            Ok(digests) => {
                let needed: HashSet<_> = digests.iter().filter_map(|digest| digest.parse().ok()).collect();
                if let Err(error) = self.deps.components.retain(needed) {
                    tracing::warn!(
                        error = %Chain(&error),
                        "cannot remove unused components; the next start tries again"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = %Chain(&error),
                    "cannot tell which components are unused; the next start tries again"
                );
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
