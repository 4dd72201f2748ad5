//! Whether a new version folds what is in the log: every stream of its aggregates, or some of them.
//!
//! Where the new version says that its state has the same shape as the running one's (the same state version), both must fold
//! a stream to the same state: what the running one has left in memory and in snapshots is taken on.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::log::{EventLog, MAX_PAGE, ReadError};
use crate::model::{Json, Recorded, StreamId};
use crate::runtime::{Component, Folded, Target};

/// Streams that are folded at one time. Reading waits for the disk and folding for the processor, so a few more than cores.
const AT_ONCE: usize = 8;
/// Streams of which is told what is wrong with them. The next versions of a component fail at the same few things.
const MAX_FINDINGS: usize = 10;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Folds {
    pub(super) streams: usize,
    pub(super) events: usize,
    /// What is wrong, a sentence a stream.
    pub(super) failures: Vec<String>,
    /// Whether there is a stream that it does not fold at all.
    failed: bool,
    /// The aggregates whose state has another shape under the same state version.
    pub(super) reshaped: Vec<Arc<str>>,
}

/// How a stream was folded.
enum Fold {
    Same { events: usize },
    Reshaped { events: usize, why: String },
    Failed { events: usize, why: String },
}

/// Folds the streams of all aggregates of `new`, or `sample` of each, and stops when enough is wrong.
pub(super) async fn fold(
    log: &dyn EventLog,
    running: Option<&Component>,
    new: &Component,
    sample: Option<usize>,
) -> Result<Folds, ReadError> {
    let mut folds = Folds::default();
    for aggregate in &new.manifest().aggregates {
        let before = running.filter(|running| {
            let before = running.manifest().aggregate(&aggregate.name);
            before.is_some_and(|before| before.state_version == aggregate.state_version)
        });
        let mut reshaped = false;
        let mut after = None;
        let mut chosen = match sample {
            Some(size) => Some(choose(log, &aggregate.name, size).await?),
            None => None,
        };
        loop {
            let page = match &mut chosen {
                Some(chosen) => std::mem::take(chosen),
                None => log.streams(&aggregate.name, after.as_ref(), MAX_PAGE).await?,
            };
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            let folded = page.into_iter().map(async |stream| fold_one(log, before, new, &stream).await);
            let mut folded = stream::iter(folded).buffer_unordered(AT_ONCE);
            while let Some(fold) = folded.next().await {
                folds.streams += 1;
                let (events, wrong) = match fold? {
                    Fold::Same { events } => (events, None),
                    Fold::Reshaped { events, why } => {
                        reshaped = true;
                        (events, Some(why))
                    }
                    Fold::Failed { events, why } => {
                        folds.failed = true;
                        (events, Some(why))
                    }
                };
                folds.events += events;
                folds.failures.extend(wrong);
            }
            if folds.failures.len() >= MAX_FINDINGS {
                break;
            }
        }
        folds.reshaped.extend(reshaped.then(|| aggregate.name.clone()));
    }
    folds.failures.truncate(MAX_FINDINGS);
    Ok(folds)
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

async fn fold_one(
    log: &dyn EventLog,
    before: Option<&Component>,
    new: &Component,
    stream: &StreamId,
) -> Result<Fold, ReadError> {
    let (mut folded, mut folded_before): (Option<Folded>, Option<Folded>) = (None, None);
    let mut events = 0;
    loop {
        let page = log.read(stream, events as u64, MAX_PAGE).await?;
        if page.is_empty() {
            break;
        }
        events += page.len();
        folded = match go_on(new, stream, folded.as_ref(), &page).await {
            Ok(folded) => folded,
            Err(why) => {
                let why = at_fault(new, stream, folded, &page, why).await;
                return Ok(Fold::Failed { events, why });
            }
        };
        if let Some(before) = before {
            // One that the running version cannot fold either is no reason to keep that one.
            folded_before = go_on(before, stream, folded_before.as_ref(), &page).await.unwrap_or_default();
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

impl Folds {
    /// Whether all that is wrong are states of another shape.
    pub(super) fn only_reshaped(&self) -> bool {
        !self.failed
    }

    /// How many streams of which aggregates.
    pub(super) fn says(&self, sample: Option<usize>) -> String {
        let sampled = if sample.is_some() { " (a sample)" } else { "" };
        let number =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!("it folds {}{sampled} with {}", number(self.streams, "stream"), number(self.events, "event"))
    }
}
