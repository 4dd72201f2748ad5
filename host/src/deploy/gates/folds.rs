//! Folds the streams in the log on a new version: every stream of its aggregates, or a sample of them.
//!
//! If the new version says that its state has the same shape as the running one's (the same state version),
//! both must fold a stream to the same state. If all streams of all aggregates are folded to the same states,
//! the new version takes over the running one's states in memory and in snapshots; if not, it folds the
//! events again.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::error::Fault;
use crate::log::{EventLog, MAX_PAGE, ReadError, more_may_follow};
use crate::model::{AggregateName, Recorded, StreamId, Version};
use crate::runtime::{Component, Folded, Target};

/// The most streams that are folded at one time, on a machine with as many cores. Each takes the memory of a
/// page of events, and one of the log's readers.
const MAX_AT_ONCE: usize = 32;
/// The most streams whose failures are reported. A defect usually fails many streams in the same way.
const MAX_FINDINGS: usize = 10;

/// The results of folding.
#[derive(Debug, Default)]
pub(super) struct Folds {
    streams: usize,
    events: usize,
    /// A sentence for each stream with a failure.
    failures: Vec<String>,
    /// True if there is a stream that the new version cannot fold at all.
    failed: bool,
    /// True if there is an aggregate whose states are not compared.
    uncompared: bool,
    /// The aggregates whose state has another shape under the same state version.
    pub(super) reshaped: Vec<AggregateName>,
}

/// Folds the streams of one aggregate.
struct Folder {
    /// The threads that fold the streams.
    threads: Handle,
    log: Arc<dyn EventLog>,
    /// The running version, if both have the same state version.
    before: Option<Component>,
    new: Component,
}

/// The result of folding one stream.
enum Fold {
    Same { events: usize },
    Reshaped { events: usize, why: String },
    Failed { events: usize, why: String },
}

impl Folds {
    /// Folds the streams of all aggregates of `new`, or `sample` of each, and stops after enough failures. If
    /// the future is dropped early, `self` has the results up to then.
    pub(super) async fn fold(
        &mut self,
        threads: &Handle,
        log: &Arc<dyn EventLog>,
        running: Option<&Component>,
        new: &Component,
        sample: Option<usize>,
    ) -> Result<(), ReadError> {
        for aggregate in &new.manifest().aggregates {
            let before = running.filter(|running| {
                let before = running.manifest().aggregate(aggregate.name.as_str());
                before.is_some_and(|before| before.state_version == aggregate.state_version)
            });
            self.uncompared |= before.is_none();
            let folder = Folder {
                threads: threads.clone(),
                log: log.clone(),
                before: before.cloned(),
                new: new.clone(),
            };
            self.fold_aggregate(&Arc::new(folder), &aggregate.name, sample).await?;
        }
        Ok(())
    }

    async fn fold_aggregate(
        &mut self,
        folder: &Arc<Folder>,
        aggregate: &AggregateName,
        sample: Option<usize>,
    ) -> Result<(), ReadError> {
        let mut chosen = match sample {
            Some(size) => Some(choose(&*folder.log, aggregate.as_str(), size).await?),
            None => None,
        };
        let mut after = None;
        loop {
            let page = match &mut chosen {
                Some(chosen) => chosen.split_off(chosen.len().saturating_sub(MAX_PAGE)),
                None => folder.log.streams(aggregate.as_str(), after.as_ref(), MAX_PAGE).await?,
            };
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            self.fold_page(folder, aggregate, page).await?;
            if self.failures.len() >= MAX_FINDINGS {
                return Ok(());
            }
        }
    }

    /// Folds some streams, each on a task of its own, so that all cores take part. Dropping the future aborts
    /// those tasks.
    async fn fold_page(
        &mut self,
        folder: &Arc<Folder>,
        aggregate: &AggregateName,
        page: Vec<StreamId>,
    ) -> Result<(), ReadError> {
        let at_once = at_once();
        let mut streams = page.into_iter();
        let mut folding = JoinSet::new();
        loop {
            let free = at_once - folding.len();
            for stream in streams.by_ref().take(free) {
                let own = folder.clone();
                folding.spawn_on(async move { own.fold(&stream).await }, &folder.threads);
            }
            let Some(folded) = folding.join_next().await else { break };
            self.apply(aggregate, folded.map_err(|error| ReadError(Arc::new(error)))??);
        }
        Ok(())
    }

    fn apply(&mut self, aggregate: &AggregateName, fold: Fold) {
        let (events, failure) = match fold {
            Fold::Same { events } => (events, None),
            Fold::Reshaped { events, why } => {
                if !self.reshaped.contains(aggregate) {
                    self.reshaped.push(aggregate.clone());
                }
                (events, Some(why))
            }
            Fold::Failed { events, why } => {
                self.failed = true;
                (events, Some(why))
            }
        };
        self.streams += 1;
        self.events += events;
        self.failures.extend(failure);
    }

    /// Returns whether nothing failed.
    pub(super) fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Returns whether both versions have folded every stream to the same state.
    pub(super) fn all_alike(&self) -> bool {
        self.passed() && !self.uncompared
    }

    /// Returns the failures, by stream, up to [`MAX_FINDINGS`].
    pub(super) fn findings(mut self) -> Vec<String> {
        // Each sentence begins with its stream.
        self.failures.sort_unstable();
        self.failures.truncate(MAX_FINDINGS);
        self.failures
    }

    /// Returns whether all failures are states of another shape.
    pub(super) fn only_reshaped(&self) -> bool {
        !self.failed
    }

    /// Returns the number of streams and events that were folded, as text.
    pub(super) fn counts(&self, sample: Option<usize>) -> String {
        let sampled = if sample.is_some() { " (a sample)" } else { "" };
        let number =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!("{}{sampled} with {}", number(self.streams, "stream"), number(self.events, "event"))
    }
}

/// Returns the number of streams to fold at one time: one a core. More would be a little faster on an idle
/// machine, but the host decides commands meanwhile.
fn at_once() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_AT_ONCE)
}

/// Chooses streams of an aggregate at random.
async fn choose(log: &dyn EventLog, aggregate: &str, size: usize) -> Result<Vec<StreamId>, ReadError> {
    // The same streams each time, so that the next deployment shows whether a defect is gone.
    let mut random = StdRng::seed_from_u64(0);
    let (mut chosen, mut seen) = (Vec::with_capacity(size.min(MAX_PAGE)), 0);
    let mut after = None;
    loop {
        let page = log.streams(aggregate, after.as_ref(), MAX_PAGE).await?;
        let Some(last) = page.last() else { return Ok(chosen) };
        after = Some(last.clone());
        for stream in page {
            seen += 1;
            if chosen.len() < size {
                chosen.push(stream);
            } else if let Some(place) = chosen.get_mut(random.random_range(0..seen)) {
                *place = stream;
            }
        }
    }
}

impl Folder {
    async fn fold(&self, stream: &StreamId) -> Result<Fold, ReadError> {
        let (mut folded, mut folded_before): (Option<Folded>, Option<Folded>) = (None, None);
        let mut events = 0;
        loop {
            let page = self.log.read(stream, Version::START.after(events), MAX_PAGE).await?;
            if page.is_empty() {
                break;
            }
            events += page.len();
            folded = match evolve(&self.new, stream, folded.as_ref(), &page).await {
                Ok(folded) => folded,
                Err(fault) => {
                    let why = explain(&self.new, stream, folded, &page, fault).await;
                    return Ok(Fold::Failed { events, why });
                }
            };
            if let Some(before) = &self.before {
                // A stream that the running version cannot fold either is no reason to keep that version.
                folded_before =
                    evolve(before, stream, folded_before.as_ref(), &page).await.unwrap_or_default();
            }
            if !more_may_follow(&page, MAX_PAGE) {
                break;
            }
        }
        match (folded_before, &folded) {
            (Some(before), Some(now)) if !same(&before.state, &now.state) => {
                let why = format!("{stream}: the events fold to another state than on the running version");
                Ok(Fold::Reshaped { events, why })
            }
            _ => Ok(Fold::Same { events }),
        }
    }
}

async fn evolve(
    component: &Component,
    stream: &StreamId,
    before: Option<&Folded>,
    since: &[Recorded],
) -> Result<Option<Folded>, Fault> {
    component.evolve(Target { stream, state: before.map(|folded| &folded.state), since }).await
}

/// Returns a sentence about a stream that cannot be folded. It names the event that fails, if a single one
/// does.
async fn explain(
    new: &Component,
    stream: &StreamId,
    mut folded: Option<Folded>,
    page: &[Recorded],
    fault: Fault,
) -> String {
    for event in page {
        match evolve(new, stream, folded.as_ref(), std::slice::from_ref(event)).await {
            Ok(next) => folded = next,
            Err(fault) => {
                let Recorded { version, name, .. } = event;
                return format!("{stream}, version {version}, {name}: {fault}: {}", fault.cause());
            }
        }
    }
    format!("{stream}: {fault}: {}", fault.cause())
}

/// Returns whether two states are the same bytes, or the same JSON apart from the order of its members.
fn same(one: &Bytes, other: &Bytes) -> bool {
    let read = |state: &Bytes| serde_json::from_slice::<Value>(state).ok();
    one == other || read(one).is_some_and(|one| Some(one) == read(other))
}
