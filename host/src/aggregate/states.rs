//! The states of aggregates: folded from the log by the service's component, kept in memory and in snapshots.
//!
//! *Invariant:* a state is served only to the component that has folded it, or to one that the gate `history`
//! has found to fold alike. *Invariant:* every state in the cache is on disk. A state that runs ahead of the
//! disk stays with the worker in `dispatch`.

use std::collections::HashSet;
use std::sync::Arc;

use futures::FutureExt as _;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, EntryAction, EntryResult};

use super::error::CommandError;
use crate::deployed::Registry;
use crate::garbage::{Collection, Garbage};
use crate::log::{EventLog, MAX_PAGE, ReadError, Snapshot, Snapshots, more_may_follow};
use crate::model::{Digest, Json, Recorded, StreamId, Version};
use crate::runtime::{Component, Folded, Target};

/// Number of states that the memory is laid out for: some kilobytes each.
const CACHED_STATES: usize = 100_000;
/// Memory of all states and their views. A single one may have some megabytes.
const CACHED_BYTES: u64 = 256 << 20;
/// Memory of an entry beside the texts.
const ENTRY_BYTES: usize = 256;
/// Number of events between two snapshots: reading and folding as many takes less than a millisecond.
const SNAPSHOT_EVERY: usize = 100;

/// The state of an aggregate at one version.
#[derive(Clone, Debug)]
pub(crate) struct AggregateState {
    pub(crate) version: Version,
    /// None before the first event.
    pub(crate) folded: Option<Folded>,
    /// The component that folded it. Only a component that folds alike takes it on.
    pub(crate) digest: Digest,
    pub(crate) snapshot_version: Version,
}

impl AggregateState {
    pub(crate) fn view(&self) -> Option<&Json> {
        self.folded.as_ref().map(|folded| &folded.view)
    }

    /// Returns whether a snapshot is due, and notes it as taken.
    pub(crate) fn take_due(&mut self) -> bool {
        let due = self.version >= self.snapshot_version.after(SNAPSHOT_EVERY);
        if due {
            self.snapshot_version = self.version;
        }
        due
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
    registry: Arc<Registry>,
    kept: Arc<KeptStates>,
}

/// The states that are kept. The log's writer adds those that it has committed, so this does not hold the
/// log: the writer would wait for its own end if it dropped the log.
pub(crate) struct KeptStates {
    snapshots: Snapshots,
    cache: Cache<StreamId, AggregateState, Bytes>,
}

/// Weighs a state by its memory.
#[derive(Clone)]
struct Bytes;

impl Weighter<StreamId, AggregateState> for Bytes {
    fn weight(&self, _: &StreamId, state: &AggregateState) -> u64 {
        let folded =
            state.folded.as_ref().map_or(0, |folded| folded.state.len() + folded.view.as_str().len());
        (ENTRY_BYTES + folded) as u64
    }
}

impl StateCache {
    /// Creates an empty cache.
    pub fn new(log: Arc<dyn EventLog>, snapshots: Snapshots, registry: Arc<Registry>) -> Self {
        let cache = Cache::with_weighter(CACHED_STATES, CACHED_BYTES, Bytes);
        Self { log, registry, kept: Arc::new(KeptStates { snapshots, cache }) }
    }

    /// Collects the snapshots that no component takes on: neither one of these, nor a running one.
    pub(crate) async fn collect_snapshots(
        &self,
        mut components: HashSet<Digest>,
        collection: Collection,
    ) -> Result<Garbage, ReadError> {
        let running = self.registry.current();
        let folded =
            running.services().flat_map(|service| self.registry.history().folds_like(service.digest()));
        components.extend(folded);
        self.kept.snapshots.collect(&components, collection).await
    }

    /// Returns the part that keeps states.
    pub(crate) fn kept(&self) -> Arc<KeptStates> {
        self.kept.clone()
    }

    /// Returns the component of the service that owns a stream's aggregate.
    pub(crate) fn owner(&self, stream: &StreamId) -> Result<Component, CommandError> {
        let deployed = self.registry.current();
        let owner = deployed.owner_of(stream).cloned();
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
        let is_short = version <= Version::START.after(SNAPSHOT_EVERY);
        let snapshot = if is_short { None } else { self.snapshot(stream, component, Some(version)).await? };
        let state = snapshot.unwrap_or_else(|| empty(component));
        self.fold(stream, component, state, Some(version)).await
    }

    /// Returns whether a component may take on a state.
    pub(crate) fn is_usable(&self, state: &AggregateState, component: &Component) -> bool {
        state.digest == component.digest()
            || self.registry.history().folds_like(component.digest()).contains(&state.digest)
    }

    /// Returns the state of an aggregate on disk.
    pub(crate) async fn load(
        &self,
        stream: &StreamId,
        component: &Component,
    ) -> Result<AggregateState, CommandError> {
        let cached = self.kept.cache.get(stream).filter(|state| self.is_usable(state, component));
        match cached {
            Some(state) if state.digest == component.digest() && self.is_newest(stream, &state) => Ok(state),
            // In a box: nearly all loads end above, and each command moves the room that is needed here.
            cached => self.read(stream, component, cached).boxed().await,
        }
    }

    /// Returns whether a state in the cache is the newest on disk, as far as that is known without a read. If
    /// no other host writes to the log, it always is.
    fn is_newest(&self, stream: &StreamId, state: &AggregateState) -> bool {
        !self.log.is_shared() || self.log.known_version(stream) == Some(state.version)
    }

    /// Returns the state of an aggregate on disk, from a state in the cache if there is one.
    async fn read(
        &self,
        stream: &StreamId,
        component: &Component,
        cached: Option<AggregateState>,
    ) -> Result<AggregateState, CommandError> {
        if let Some(state) = cached {
            let own = state.digest == component.digest();
            let mut state = if own { state } else { state.with_view_of(component, stream).await? };
            if self.log.is_shared() {
                state = self.fold(stream, component, state, None).await?;
            }
            return Ok(self.keep(stream, state));
        }
        // A shorter stream has no snapshot. Most streams are shorter, and this is their only read.
        let first = self.log.read(stream, Version::START, SNAPSHOT_EVERY).await?;
        let more = more_may_follow(&first, SNAPSHOT_EVERY);
        let snapshot = if more { self.snapshot(stream, component, None).await? } else { None };
        let mut state = match snapshot {
            Some(snapshot) => snapshot,
            None => advance(stream, component, empty(component), &first).await?,
        };
        if more {
            state = self.fold(stream, component, state, None).await?;
        }
        self.keep_loaded(stream, state).await
    }

    /// Returns the state of the latest snapshot that a component may take on, up to a version if it is given.
    async fn snapshot(
        &self,
        stream: &StreamId,
        component: &Component,
        up_to: Option<Version>,
    ) -> Result<Option<AggregateState>, CommandError> {
        let folded_by = self.registry.history().folds_like(component.digest());
        let Some(snapshot) = self.kept.snapshots.load(&*self.log, stream, folded_by, up_to).await else {
            return Ok(None);
        };
        let Snapshot { version, digest, state, view } = snapshot;
        let folded = Some(Folded { state, view });
        let state = AggregateState { version, folded, digest, snapshot_version: version };
        match digest == component.digest() {
            true => Ok(Some(state)),
            false => state.with_view_of(component, stream).await.map(Some),
        }
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
            if events.is_empty() {
                return Ok(state);
            }
            state = advance(stream, component, state, &events).await?;
            if events.len() == MAX_PAGE {
                self.kept.save(stream, &state);
            }
        }
    }

    /// Caches a state that was loaded, unless a commit has overtaken it: the newer state may have been in the
    /// cache and out of it again meanwhile.
    async fn keep_loaded(
        &self,
        stream: &StreamId,
        state: AggregateState,
    ) -> Result<AggregateState, CommandError> {
        let state = self.keep(stream, state);
        // A commit after this read finds the state in the cache and replaces it.
        if !self.log.is_shared()
            && state.version > Version::START
            && !self.log.read(stream, state.version, 1).await?.is_empty()
        {
            self.forget(stream);
        }
        Ok(state)
    }

    /// Caches a state that is on disk, and saves a snapshot if one is due.
    fn keep(&self, stream: &StreamId, mut state: AggregateState) -> AggregateState {
        let due = state.take_due();
        self.kept.committed(stream, state.clone(), due);
        state
    }

    /// Removes a state that may differ from the one on disk.
    pub(crate) fn forget(&self, stream: &StreamId) {
        self.kept.cache.remove(stream);
    }
}

impl KeptStates {
    /// Saves a snapshot of a state that is on disk.
    fn save(&self, stream: &StreamId, state: &AggregateState) {
        if let Some(Folded { state: folded, view }) = state.folded.clone() {
            let (version, digest) = (state.version, state.digest);
            self.snapshots.save(stream.clone(), Snapshot { version, digest, state: folded, view });
        }
    }

    /// Caches a state that has been committed, and saves a snapshot of it if that is `due`. Called before
    /// anybody can read the commit, so that no reader finds an older state after it.
    pub(crate) fn committed(&self, stream: &StreamId, mut state: AggregateState, due: bool) {
        if due {
            self.save(stream, &state);
        }
        if state.version > Version::START {
            // A reader that was overtaken by a commit must not replace a newer state.
            let newer = self.cache.entry(stream, None, |_, cached| {
                if cached.version <= state.version {
                    std::mem::swap(cached, &mut state);
                }
                EntryAction::Retain(())
            });
            if let EntryResult::Vacant(place) = newer {
                // Err: the entry was removed meanwhile, so this state may be stale.
                let _ = place.insert(state);
            }
        }
    }
}

/// Returns the state after more events.
async fn advance(
    stream: &StreamId,
    component: &Component,
    mut state: AggregateState,
    events: &[Recorded],
) -> Result<AggregateState, CommandError> {
    if let Some(last) = events.last() {
        state.folded = component.evolve(Target { since: events, ..state.target(stream) }).await?;
        state.version = last.version;
    }
    Ok(state)
}

/// Returns the state of an aggregate before its first event.
pub(crate) fn empty(component: &Component) -> AggregateState {
    AggregateState {
        version: Version::START,
        folded: None,
        digest: component.digest(),
        snapshot_version: Version::START,
    }
}
