//! Follows the log: what its events start, wake or tell, on this host as far as it is for this host.

use std::collections::HashSet;
use std::sync::Arc;

use super::index::{Change, Listed, Open, Unended};
use super::sender::NotHere;
use super::{LOG_PAUSE, Place, SagaStatus, Shared, record};
use crate::log::Subscription;
use crate::model::{Recorded, SAGA, SagaId, StreamId};

impl Shared {
    /// Runs the open sagas, then those that the log's events start or wake.
    pub(super) async fn follow(self: Arc<Self>, open: Vec<Arc<Open>>, mut subscription: Subscription) {
        if !open.is_empty() {
            tracing::info!(sagas = open.len(), "taking up the sagas that have not ended");
        }
        for saga in open {
            if self.spawn(saga, None).await.is_err() {
                return;
            }
        }
        let mut members = self.deps.nodes.changed();
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
                Ok(Some(page)) if self.take_in(&page).await.is_ok() => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "sagas cannot follow the log");
                    tokio::time::sleep(LOG_PAUSE).await;
                }
            }
        }
    }

    /// Starts and wakes the sagas that a page of events is about, and remembers that.
    async fn take_in(self: &Arc<Self>, page: &[Recorded]) -> Result<(), NotHere> {
        let deployed = self.deps.components.current();
        let (mut changes, mut called) = (Vec::new(), Vec::new());
        for event in page {
            if event.stream.aggregate() == SAGA {
                let change = Change::of(event);
                match &change {
                    Some(Change::Resumed { id }) => called.push(id.clone()),
                    Some(Change::Taken { id, node }) if Some(node) != self.deps.nodes.me() => {
                        self.lose(id);
                    }
                    Some(change) => self.tell_of(change),
                    None => {}
                }
                changes.extend(change);
                continue;
            }
            for (id, trigger) in
                deployed.started_by(&event.stream, event.name.as_str(), event.index, &event.meta)
            {
                let open = Arc::new(Open {
                    id,
                    trigger: event.position,
                    service: trigger.component.manifest().service.clone(),
                    name: trigger.saga.clone(),
                });
                changes.push(Change::Triggered { open: open.clone(), stream: event.stream.to_string() });
                if self.deps.nodes.owns(open.id.as_str(), None) {
                    // One that an earlier process may have run looks into its journal first.
                    let new = (event.position > self.since).then(|| event.clone());
                    self.spawn(open, new).await?;
                }
            }
            for sleeper in self.waits.happened(&event.stream, event.name.as_str()) {
                self.spawn(sleeper, None).await?;
            }
        }
        let Some(last) = page.last() else { return Ok(()) };
        // No later position may be written before these triggers are: a restart would not look for them again.
        while let Err(error) = self.index.apply(changes.clone(), last.position).await {
            tracing::error!(%error, "the index of sagas cannot be written");
            self.pause(LOG_PAUSE).await?;
        }
        self.followed.send_replace(last.position);
        if self.deps.nodes.me().is_some() {
            self.call(called).await?;
        }
        Ok(())
    }

    /// Has a saga that runs here take no step any more before it has looked at its journal.
    fn lose(&self, id: &SagaId) {
        if let Some(under_way) = self.under_way().get_mut(id)
            && under_way.place != Place::None
        {
            under_way.lost = true;
            under_way.place = Place::TakenAndCalled;
        }
    }

    /// Runs sagas that a person has acted on, on whichever host.
    async fn call(self: &Arc<Self>, called: Vec<SagaId>) -> Result<(), NotHere> {
        for id in called {
            match self.index.find(&id).await {
                Ok(Some(Listed { open, .. })) => self.spawn(Arc::new(open), None).await?,
                Ok(None) => {}
                Err(error) => tracing::error!(%error, saga = %id, "a saga goes on at the next start only"),
            }
        }
        Ok(())
    }

    /// Runs the sagas that have become this host's.
    async fn take_over(self: &Arc<Self>) -> Result<(), NotHere> {
        let unended = loop {
            match self.index.unended().await {
                Ok(unended) => break unended,
                Err(error) => tracing::error!(%error, "the index of sagas cannot be read"),
            }
            self.pause(LOG_PAUSE).await?;
        };
        let mut taken = 0;
        for Unended { open, runner, .. } in unended {
            if self.deps.nodes.owns(open.id.as_str(), runner.as_ref()) && !self.waits.has(&open.id) {
                taken += usize::from(!self.under_way().contains_key(&open.id));
                self.spawn(Arc::new(open), None).await?;
            }
        }
        if taken > 0 {
            tracing::info!(sagas = taken, "taking up the sagas that are this host's now");
        }
        Ok(())
    }

    /// Wakes the sagas whose time is over.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let due = async {
                match self.waits.next_ms() {
                    Some(time_ms) => self.deps.clock.until(time_ms).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stopped() => return,
                () = self.waits.changed.notified() => continue,
                () = due => {}
            }
            for sleeper in self.waits.due(self.deps.clock.now_ms()) {
                if self.spawn(sleeper, None).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Lets go of the components of the past that no saga needs any more, once it is known which sagas there are.
    pub(super) async fn clear_components(self: Arc<Self>) {
        let head = *self.deps.log.head().borrow();
        let mut followed = self.followed.subscribe();
        tokio::select! {
            () = self.stopped() => return,
            // Err cannot be: the sender is in here.
            _ = followed.wait_for(|position| *position >= head) => {}
        }
        match self.index.digests().await {
            Ok(digests) => {
                let needed: HashSet<_> = digests.iter().filter_map(|digest| digest.parse().ok()).collect();
                if let Err(error) = self.deps.components.retain(needed) {
                    tracing::warn!(%error, "components that nobody needs are still there");
                }
            }
            Err(error) => tracing::warn!(%error, "components that nobody needs are still there"),
        }
    }

    /// Tells those who wait here for a saga that another host runs.
    fn tell_of(self: &Arc<Self>, change: &Change) {
        let id = match change {
            Change::Moved { id, state } if state.settled() => id,
            Change::Parked { id, .. } => id,
            _ => return,
        };
        let alone = self.deps.nodes.me().is_none();
        if alone || !self.waiting().contains_key(id) || self.under_way().contains_key(id) {
            return;
        }
        let (shared, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let Ok(stream) = StreamId::new(SAGA, id.as_str()) else { return };
            // Err: they wait as long as they wanted to, and then look for themselves. It may go on by now.
            if let Ok((_, Some(saga))) = record::read(&*shared.deps.log, &stream).await
                && saga.state.settled()
            {
                shared.tell_waiting(&SagaStatus::of(&id, &saga));
            }
        });
    }
}
