//! The states of aggregates: folded from the log by the service's component, kept in memory and in snapshots.
//!
//! *Invariant:* every state in the cache is on disk. A state that runs ahead of the disk stays with the
//! worker in `dispatch`.

use std::sync::Arc;

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use super::error::CommandError;
use crate::deployed::Registry;
use crate::log::{EventLog, MAX_PAGE, Snapshot, Snapshots};
use crate::model::{Digest, Json, StreamId, Version};
use crate::runtime::{Component, Folded, Target};

/// Number of states in memory. At a kilobyte each, a hundred megabytes.
const CACHED_STATES: usize = 100_000;
/// Number of events between two snapshots: reading and folding as many takes less than a millisecond.
const SNAPSHOT_EVERY: usize = 100;

/// The state of an aggregate at one version.
#[derive(Clone, Debug)]
pub(crate) struct AggregateState {
    pub(crate) version: Version,
    /// None before the first event.
    pub(crate) folded: Option<Folded>,
    /// The component that folded it. Another one may show another view of the same state.
    pub(crate) digest: Digest,
    pub(crate) state_version: u32,
    pub(crate) snapshot_version: Version,
}

impl AggregateState {
    pub(crate) fn view(&self) -> Option<&Json> {
        self.folded.as_ref().map(|folded| &folded.view)
    }

    /// Returns the same state with the view that this component shows of it.
    pub(crate) async fn with_view_of(
        self,
        component: &Component,
        stream: &StreamId,
    ) -> Result<Self, CommandError> {
        let folded = component.evolve(self.target(stream)).await?;
        Ok(Self { folded, digest: component.digest(), ..self })
    }

    pub(crate) fn target<'a>(&'a self, stream: &'a StreamId) -> Target<'a> {
        Target { stream, state: self.folded.as_ref().map(|folded| &folded.state), since: &[] }
    }
}

/// The view of an aggregate at one version.
#[derive(Clone, Debug)]
pub struct Viewed {
    /// The component that shows the view.
    pub component: Digest,
    /// The aggregate's version.
    pub version: Version,
    /// The view, as clients get it.
    pub view: Json,
}

/// Loads the states of aggregates, and keeps those that were used last.
pub struct StateCache {
    log: Arc<dyn EventLog>,
    snapshots: Snapshots,
    registry: Arc<Registry>,
    cache: Cache<StreamId, AggregateState>,
}

impl StateCache {
    /// Creates an empty cache.
    pub fn new(log: Arc<dyn EventLog>, snapshots: Snapshots, registry: Arc<Registry>) -> Self {
        Self { log, snapshots, registry, cache: Cache::new(CACHED_STATES) }
    }

    /// Returns the component of the service that owns a stream's aggregate.
    pub(crate) fn owner(&self, stream: &StreamId) -> Result<Component, CommandError> {
        let deployed = self.registry.current();
        let owner = deployed.owner(stream.aggregate()).cloned();
        owner.ok_or_else(|| CommandError::Unknown(format!("aggregate {}", stream.aggregate())))
    }

    /// Returns the view of an aggregate now, or at an earlier version; `None` if it does not exist (at that
    /// version).
    pub async fn view(&self, stream: &StreamId, at: Option<Version>) -> Result<Option<Viewed>, CommandError> {
        let component = self.owner(stream)?;
        let state = match at {
            None => self.load(stream, &component).await?,
            Some(version) => self.at(stream, &component, version).await?,
        };
        let AggregateState { version, folded, digest: component, .. } = state;
        let reached = at.is_none_or(|at| at == version);
        Ok(folded.filter(|_| reached).map(|folded| Viewed { component, version, view: folded.view }))
    }

    /// Returns the state of an aggregate at an earlier version.
    pub(crate) async fn at(
        &self,
        stream: &StreamId,
        component: &Component,
        version: Version,
    ) -> Result<AggregateState, CommandError> {
        self.fold(stream, component, empty(component, stream), Some(version)).await
    }

    /// Returns the state of an aggregate on disk.
    pub(crate) async fn load(
        &self,
        stream: &StreamId,
        component: &Component,
    ) -> Result<AggregateState, CommandError> {
        let empty = empty(component, stream);
        let usable = |state: &AggregateState| state.state_version == empty.state_version;
        if let Some(state) = self.cache.get(stream).filter(usable) {
            let own = state.digest == component.digest();
            if own && !self.log.is_shared() {
                return Ok(state);
            }
            let mut state = if own { state } else { state.with_view_of(component, stream).await? };
            if self.log.is_shared() {
                state = self.fold(stream, component, state, None).await?;
            }
            return Ok(self.keep(stream, state));
        }
        // A shorter stream has no snapshot. Most streams are shorter, and this is their only read.
        let first = self.log.read(stream, Version::START, SNAPSHOT_EVERY).await?;
        let mut start = empty;
        if let Some(last) = first.last() {
            start.folded = component.evolve(Target { since: &first, ..start.target(stream) }).await?;
            start.version = last.version;
        }
        if first.len() == SNAPSHOT_EVERY
            && let Some(snapshot) = self.snapshots.load(stream, start.state_version).await
        {
            let target = Target { stream, state: Some(&snapshot.state), since: &[] };
            start.folded = component.evolve(target).await?;
            start.version = snapshot.version;
            start.snapshot_version = snapshot.version;
        }
        let state = match first.len() < SNAPSHOT_EVERY {
            true => start,
            false => self.fold(stream, component, start, None).await?,
        };
        Ok(self.keep(stream, state))
    }

    /// Folds the events after `state`, up to `up_to` if it is given.
    async fn fold(
        &self,
        stream: &StreamId,
        component: &Component,
        mut state: AggregateState,
        up_to: Option<Version>,
    ) -> Result<AggregateState, CommandError> {
        loop {
            let left = up_to.map_or(MAX_PAGE, |version| version.distance_from(state.version) as usize);
            let events = self.log.read(stream, state.version, left.min(MAX_PAGE)).await?;
            let Some(last) = events.last() else {
                return Ok(state);
            };
            state.version = last.version;
            state.folded = component.evolve(Target { since: &events, ..state.target(stream) }).await?;
        }
    }

    /// Caches a state that is on disk, and saves a snapshot when one is due.
    pub(crate) fn keep(&self, stream: &StreamId, mut state: AggregateState) -> AggregateState {
        if state.version >= state.snapshot_version.after(SNAPSHOT_EVERY)
            && let Some(folded) = state.folded.clone()
        {
            state.snapshot_version = state.version;
            let snapshot = Snapshot { version: state.version, state: folded.state, view: folded.view };
            self.snapshots.save(stream.clone(), state.state_version, snapshot);
        }
        if state.version > Version::START {
            // A reader that was overtaken by a commit must not replace a newer state.
            let newer = self.cache.entry(stream, None, |_, cached| {
                if cached.version <= state.version {
                    *cached = state.clone();
                }
                EntryAction::Retain(())
            });
            if let EntryResult::Vacant(place) = newer {
                // Err: the entry was removed meanwhile, so this state may be stale.
                let _ = place.insert(state.clone());
            }
        }
        state
    }

    /// Removes a state that may differ from the one on disk.
    pub(crate) fn forget(&self, stream: &StreamId) {
        self.cache.remove(stream);
    }
}

/// Returns the state of an aggregate before its first event.
pub(crate) fn empty(component: &Component, stream: &StreamId) -> AggregateState {
    let aggregate = component.manifest().aggregate(stream.aggregate());
    AggregateState {
        version: Version::START,
        folded: None,
        digest: component.digest(),
        state_version: aggregate.map_or(0, |aggregate| aggregate.state_version),
        snapshot_version: Version::START,
    }
}
