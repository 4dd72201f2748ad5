//! The states of aggregates: folded from the log by the service's component, kept in memory and in snapshots.
//!
//! *Invariant:* what is kept here is on disk. A state that runs ahead of the disk stays with the worker in `dispatch`.

use std::sync::Arc;

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use super::error::CommandError;
use crate::deployed::Registry;
use crate::log::{EventLog, MAX_PAGE, Snapshot, Snapshots};
use crate::model::{Digest, Json, StreamId, Version};
use crate::runtime::{Component, Folded, Target};

/// States kept in memory. At a kilobyte each, a hundred megabytes.
const CACHED_STATES: usize = 100_000;
/// A snapshot is taken after so many events: reading and folding them again takes less than a millisecond.
const SNAPSHOT_EVERY: usize = 100;

/// An aggregate at one version.
#[derive(Clone, Debug)]
pub(crate) struct AggregateState {
    pub(crate) version: Version,
    /// None before the first event.
    pub(crate) folded: Option<Folded>,
    /// The component that folded it: another may show another view of the same state.
    pub(crate) digest: Digest,
    pub(crate) state_version: u32,
    pub(crate) snapshot_version: Version,
}

impl AggregateState {
    pub(crate) fn view(&self) -> Option<&Json> {
        self.folded.as_ref().map(|folded| &folded.view)
    }

    /// The same state, with the view that another component has of it.
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
    /// Whose view it is.
    pub component: Digest,
    pub version: Version,
    pub view: Json,
}

pub struct StateCache {
    log: Arc<dyn EventLog>,
    snapshots: Snapshots,
    registry: Arc<Registry>,
    cache: Cache<StreamId, AggregateState>,
}

impl StateCache {
    pub fn new(log: Arc<dyn EventLog>, snapshots: Snapshots, registry: Arc<Registry>) -> Self {
        Self { log, snapshots, registry, cache: Cache::new(CACHED_STATES) }
    }

    /// The service that a stream's aggregate belongs to.
    pub(crate) fn owner(&self, stream: &StreamId) -> Result<Component, CommandError> {
        let deployed = self.registry.current();
        let owner = deployed.owner(stream.aggregate()).cloned();
        owner.ok_or_else(|| CommandError::Unknown(format!("aggregate {}", stream.aggregate())))
    }

    /// The view of an aggregate now, or at a version of the past; none if it does not exist (then).
    pub async fn view(&self, stream: &StreamId, at: Option<Version>) -> Result<Option<Viewed>, CommandError> {
        let component = self.owner(stream)?;
        let live = match at {
            None => self.load(stream, &component).await?,
            Some(version) => self.at(stream, &component, version).await?,
        };
        let AggregateState { version, folded, digest: component, .. } = live;
        let reached = at.is_none_or(|at| at == version);
        Ok(folded.filter(|_| reached).map(|folded| Viewed { component, version, view: folded.view }))
    }

    /// The aggregate as it was at a version.
    pub(crate) async fn at(
        &self,
        stream: &StreamId,
        component: &Component,
        version: Version,
    ) -> Result<AggregateState, CommandError> {
        self.fold(stream, component, empty(component, stream), Some(version)).await
    }

    /// The aggregate as it is on disk.
    pub(crate) async fn load(
        &self,
        stream: &StreamId,
        component: &Component,
    ) -> Result<AggregateState, CommandError> {
        let empty = empty(component, stream);
        let usable = |live: &AggregateState| live.state_version == empty.state_version;
        if let Some(live) = self.cache.get(stream).filter(usable) {
            let own = live.digest == component.digest();
            if own && !self.log.is_shared() {
                return Ok(live);
            }
            let mut live = if own { live } else { live.with_view_of(component, stream).await? };
            if self.log.is_shared() {
                live = self.fold(stream, component, live, None).await?;
            }
            return Ok(self.keep(stream, live));
        }
        // A stream that is shorter has no snapshot: most are, and are read in one go.
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
        let live = match first.len() < SNAPSHOT_EVERY {
            true => start,
            false => self.fold(stream, component, start, None).await?,
        };
        Ok(self.keep(stream, live))
    }

    /// Folds the events after `live`, up to a version if one is given.
    async fn fold(
        &self,
        stream: &StreamId,
        component: &Component,
        mut live: AggregateState,
        up_to: Option<Version>,
    ) -> Result<AggregateState, CommandError> {
        loop {
            let left = up_to.map_or(MAX_PAGE, |version| version.distance_from(live.version) as usize);
            let events = self.log.read(stream, live.version, left.min(MAX_PAGE)).await?;
            let Some(last) = events.last() else {
                return Ok(live);
            };
            live.version = last.version;
            live.folded = component.evolve(Target { since: &events, ..live.target(stream) }).await?;
        }
    }

    /// Remembers a state that is on disk, and takes a snapshot when one is due.
    pub(crate) fn keep(&self, stream: &StreamId, mut live: AggregateState) -> AggregateState {
        if live.version >= live.snapshot_version.after(SNAPSHOT_EVERY)
            && let Some(Folded { state, view }) = live.folded.clone()
        {
            live.snapshot_version = live.version;
            self.snapshots.save(
                stream.clone(),
                live.state_version,
                Snapshot { version: live.version, state, view },
            );
        }
        if live.version > Version::START {
            // A reader that was overtaken by a commit must not bring an older state back.
            let newer = self.cache.entry(stream, None, |_, cached| {
                if cached.version <= live.version {
                    *cached = live.clone();
                }
                EntryAction::Retain(())
            });
            if let EntryResult::Vacant(place) = newer {
                // Err: the entry has been removed meanwhile, so this state may be stale.
                let _ = place.insert(live.clone());
            }
        }
        live
    }

    /// Forgets a state that may not be what is on disk.
    pub(crate) fn forget(&self, stream: &StreamId) {
        self.cache.remove(stream);
    }
}

/// The aggregate before its first event.
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
