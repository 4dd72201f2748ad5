//! Whether a new version folds what is in the log: every stream of its aggregates, or some of them.
//!
//! Where the new version says that its state has the same shape as the running one's (the same state version), both must fold
//! a stream to the same state: what the running one has left in memory and in snapshots is taken on.

use std::sync::Arc;
use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::log::{EventLog, MAX_PAGE, ReadError};
use crate::model::{AggregateName, Json, Recorded, StreamId, Version};
use crate::runtime::{Component, Folded, Target};

/// Streams that are folded at one time at most, where there are as many cores: each takes the memory of a page of events, and one
/// of the log's readers.
const MAX_AT_ONCE: usize = 32;
/// Streams of which is told what is wrong with them. The next versions of a component fail at the same few things.
const MAX_FINDINGS: usize = 10;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Folds {
    streams: usize,
    events: usize,
    /// What is wrong, a sentence a stream.
    failures: Vec<String>,
    /// Whether there is a stream that it does not fold at all.
    failed: bool,
    /// The aggregates whose state has another shape under the same state version.
    pub(super) reshaped: Vec<AggregateName>,
}

/// What the streams of an aggregate are folded with.
struct Folder {
    /// Where the streams are folded.
    threads: Handle,
    log: Arc<dyn EventLog>,
    /// The running version, if the new one takes on its states.
    before: Option<Component>,
    new: Component,
}

/// How a stream was folded.
enum Fold {
    Same { events: usize },
    Reshaped { events: usize, why: String },
    Failed { events: usize, why: String },
}

impl Folds {
    /// Folds the streams of all aggregates of `new`, or `sample` of each, and stops when enough is wrong. If it is given up
    /// before its end, this says how far it has come.
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

    /// Folds some streams, each on a task of its own, so that all cores take part. Those that have not ended when this is
    /// dropped are broken off.
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
            self.take_in(aggregate, folded.map_err(|error| ReadError(Arc::new(error)))??);
        }
        Ok(())
    }

    fn take_in(&mut self, aggregate: &AggregateName, fold: Fold) {
        let (events, wrong) = match fold {
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
        self.failures.extend(wrong);
    }

    /// Whether nothing is wrong.
    pub(super) fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// What is wrong with the first streams of which something is, a sentence each.
    pub(super) fn findings(mut self) -> Vec<String> {
        // Each sentence begins with its stream.
        self.failures.sort_unstable();
        self.failures.truncate(MAX_FINDINGS);
        self.failures
    }

    /// Whether all that is wrong are states of another shape.
    pub(super) fn only_reshaped(&self) -> bool {
        !self.failed
    }

    /// How many streams with how many events.
    pub(super) fn says(&self, sample: Option<usize>) -> String {
        let sampled = if sample.is_some() { " (a sample)" } else { "" };
        let number =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!("{}{sampled} with {}", number(self.streams, "stream"), number(self.events, "event"))
    }
}

/// One stream a core. More would be a little faster where nothing else happens, but commands are taken meanwhile.
fn at_once() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_AT_ONCE)
}

/// Some streams of an aggregate, each as likely as any other.
async fn choose(log: &dyn EventLog, aggregate: &str, size: usize) -> Result<Vec<StreamId>, ReadError> {
    // The same each time: whoever has the operator sample wants to know whether a defect is gone.
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
            folded = match go_on(&self.new, stream, folded.as_ref(), &page).await {
                Ok(folded) => folded,
                Err(why) => {
                    let why = at_fault(&self.new, stream, folded, &page, why).await;
                    return Ok(Fold::Failed { events, why });
                }
            };
            if let Some(before) = &self.before {
                // One that the running version cannot fold either is no reason to keep that one.
                folded_before =
                    go_on(before, stream, folded_before.as_ref(), &page).await.unwrap_or_default();
            }
            if page.len() < MAX_PAGE {
                break;
            }
        }
        match (folded_before, &folded) {
            (Some(before), Some(now)) if !same(&before.state, &now.state) => {
                let why = format!("{stream}: the same events make another state than on the running version");
                Ok(Fold::Reshaped { events, why })
            }
            _ => Ok(Fold::Same { events }),
        }
    }
}

async fn go_on(
    component: &Component,
    stream: &StreamId,
    before: Option<&Folded>,
    since: &[Recorded],
) -> Result<Option<Folded>, String> {
    let target = Target { stream, state: before.map(|folded| &folded.state), since };
    component.evolve(target).await.map_err(|fault| format!("{fault}: {}", fault.cause()))
}

/// The sentence about a stream that cannot be folded: which event is in the way, if one alone can be named.
async fn at_fault(
    new: &Component,
    stream: &StreamId,
    mut folded: Option<Folded>,
    page: &[Recorded],
    why: String,
) -> String {
    for event in page {
        match go_on(new, stream, folded.as_ref(), std::slice::from_ref(event)).await {
            Ok(next) => folded = next,
            Err(why) => return format!("{stream}, version {}, {}: {why}", event.version, event.name),
        }
    }
    format!("{stream}: {why}")
}

/// Whether two states are the same JSON, however their fields are ordered.
fn same(one: &Json, other: &Json) -> bool {
    let read = |json: &Json| json.read::<Value>().ok();
    one == other || read(one) == read(other)
}
