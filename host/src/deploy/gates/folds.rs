//! Folds the streams in the log on a new version: every stream of its aggregates, or a sample of them.
//!
//! If the new version says that its state has the same shape as the running one's (the same state version),
//! both must fold a stream to the same state. If all streams of all aggregates are folded to the same states,
//! the new version takes over the running one's states in memory and in snapshots; if not, it folds the
//! events again.
//!
//! The states are remembered: a later deployment folds only the streams that have gone on, and those that a
//! component has not seen.

use std::collections::{HashMap, VecDeque};
use std::iter;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::memory::{FoldMemory, Folded, Remembered, StateHash};
use super::{Examiner, Progress};
use crate::error::Fault;
use crate::log::{EventLog, MAX_PAGE, ReadError, more_may_follow};
use crate::model::{AggregateName, LogMark, Recorded, StreamId, Version};
use crate::runtime::{Component, Target};

/// The most tasks that fold at one time, on a machine with as many cores. Each takes the memory of a page of
/// events, and one of the log's readers.
const MAX_AT_ONCE: usize = 32;
/// The number of streams whose events are read together, and folded on one task.
const TOGETHER: usize = 64;
/// The most streams whose failures are reported. A defect usually fails many streams in the same way.
const MAX_FINDINGS: usize = 10;

/// The results of folding.
#[derive(Debug, Default)]
pub(super) struct Folds {
    streams: usize,
    /// The number of streams that there are to fold, as far as it is known.
    expected: u64,
    events: usize,
    /// The number of streams that both versions had folded before.
    remembered: usize,
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
    memory: FoldMemory,
    progress: Arc<Progress>,
}

/// A stream to be folded.
struct Subject {
    stream: StreamId,
    version: Version,
    /// The states that the new version and the one before it have folded earlier.
    known: [Option<Remembered>; 2],
}

impl Subject {
    /// Returns whether nothing is left to fold. `both`: by the version before, too.
    fn is_known(&self, both: bool) -> bool {
        let is_folded =
            |known: &Option<Remembered>| known.as_ref().is_some_and(|known| known.version == self.version);
        let [new, before] = &self.known;
        is_folded(new) && (!both || is_folded(before))
    }

    /// Returns the version after which events are missing. `both`: to one of the two versions.
    fn folded_up_to(&self, both: bool) -> Version {
        let [new, before] =
            self.known.each_ref().map(|known| Remembered::usable(known.as_ref(), self.version));
        if both { new.min(before) } else { new }
    }
}

/// The result of folding one stream.
struct Fold {
    events: usize,
    verdict: Verdict,
    /// The states that are new to the memory.
    folded: Vec<Folded>,
}

enum Verdict {
    Same,
    Reshaped(String),
    Failed(String),
}

impl Folds {
    /// Folds the streams of all aggregates of `new`, or `sample` of each, and stops after enough failures. If
    /// the future is dropped early, `self` has the results up to then.
    pub(super) async fn fold(
        &mut self,
        examiner: &Examiner<'_>,
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
                threads: examiner.runtime.background(),
                log: examiner.log.clone(),
                before: before.cloned(),
                new: new.clone(),
                memory: examiner.memory.clone(),
                progress: examiner.progress.clone(),
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
        self.expected += match &chosen {
            Some(chosen) => chosen.len() as u64,
            None => folder.log.count_streams(aggregate.as_str()).await?,
        };
        let mut after = None;
        loop {
            let page = match &mut chosen {
                Some(chosen) => chosen.split_off(chosen.len().saturating_sub(MAX_PAGE)),
                None => folder.log.streams(aggregate.as_str(), after.as_ref(), MAX_PAGE).await?,
            };
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            self.fold_page(folder, aggregate, page).await?;
            if self.failures.len() >= MAX_FINDINGS {
                return Ok(());
            }
        }
    }

    /// Folds some streams, a few of them on a task, so that all cores take part. Dropping the future aborts
    /// those tasks. A stream that is remembered needs none.
    async fn fold_page(
        &mut self,
        folder: &Arc<Folder>,
        aggregate: &AggregateName,
        page: Vec<(StreamId, Version)>,
    ) -> Result<(), ReadError> {
        let at_once = at_once();
        let is_known = |subject: &Subject| subject.is_known(folder.before.is_some());
        let (known, unknown): (Vec<_>, Vec<_>) = folder.subjects(page).await.into_iter().partition(is_known);
        for subject in known {
            self.apply(aggregate, folder.fold(subject, Vec::new()).await?);
            folder.progress.reach(self.streams as u64, self.expected);
        }
        let mut unknown = unknown.into_iter();
        let mut groups = iter::from_fn(|| Some(unknown.by_ref().take(TOGETHER).collect::<Vec<_>>()))
            .take_while(|group| !group.is_empty());
        let (mut folding, mut folded) = (JoinSet::new(), Vec::new());
        loop {
            let free = at_once - folding.len();
            for group in groups.by_ref().take(free) {
                let own = folder.clone();
                folding.spawn_on(async move { own.fold_group(group).await }, &folder.threads);
            }
            let Some(folds) = folding.join_next().await else { break };
            for fold in folds.map_err(|error| ReadError(Arc::new(error)))?? {
                folded.extend(self.apply(aggregate, fold));
            }
            folder.progress.reach(self.streams as u64, self.expected);
        }
        folder.memory.keep(folded).await;
        Ok(())
    }

    /// Returns what is new to the memory.
    fn apply(&mut self, aggregate: &AggregateName, Fold { events, verdict, folded }: Fold) -> Vec<Folded> {
        self.streams += 1;
        self.events += events;
        self.remembered += usize::from(folded.is_empty() && !matches!(verdict, Verdict::Failed(_)));
        match verdict {
            Verdict::Same => {}
            Verdict::Reshaped(why) => {
                if !self.reshaped.contains(aggregate) {
                    self.reshaped.push(aggregate.clone());
                }
                self.failures.push(why);
            }
            Verdict::Failed(why) => {
                self.failed = true;
                self.failures.push(why);
            }
        }
        folded
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
        let remembered = match self.remembered {
            0 => String::new(),
            remembered => format!(", {remembered} as remembered"),
        };
        let (streams, events) = (number(self.streams, "stream"), number(self.events, "event"));
        format!("{streams}{sampled} with {events}{remembered}")
    }
}

/// Returns the number of streams to fold at one time: one a core. More would be a little faster on an idle
/// machine, but the host decides commands meanwhile.
fn at_once() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_AT_ONCE)
}

/// Chooses streams of an aggregate at random.
async fn choose(
    log: &dyn EventLog,
    aggregate: &str,
    size: usize,
) -> Result<Vec<(StreamId, Version)>, ReadError> {
    // The same streams each time, so that the next deployment shows whether a defect is gone.
    let mut random = StdRng::seed_from_u64(0);
    let (mut chosen, mut seen) = (Vec::with_capacity(size.min(MAX_PAGE)), 0);
    let mut after = None;
    loop {
        let page = log.streams(aggregate, after.as_ref(), MAX_PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(chosen) };
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
    /// Returns the streams of a page, with what is remembered of them.
    async fn subjects(&self, page: Vec<(StreamId, Version)>) -> Vec<Subject> {
        let streams = || page.iter().map(|(stream, _)| stream.clone()).collect();
        let mut new = self.memory.recall(self.new.digest(), streams()).await;
        let mut before = match &self.before {
            Some(before) => self.memory.recall(before.digest(), streams()).await,
            None => HashMap::new(),
        };
        let subject = |(stream, version)| {
            let known = [new.remove(&stream), before.remove(&stream)];
            Subject { stream, version, known }
        };
        page.into_iter().map(subject).collect()
    }

    /// Folds some streams, whose events are read together.
    async fn fold_group(&self, subjects: Vec<Subject>) -> Result<Vec<Fold>, ReadError> {
        let both = self.before.is_some();
        let wanted = |subject: &Subject| (subject.stream.clone(), subject.folded_up_to(both));
        let mut folds = Vec::with_capacity(subjects.len());
        let mut subjects = VecDeque::from(subjects);
        while !subjects.is_empty() {
            let pages = self.log.read_streams(&subjects.iter().map(wanted).collect::<Vec<_>>()).await?;
            for page in pages {
                if let Some(subject) = subjects.pop_front() {
                    folds.push(self.fold(subject, page).await?);
                }
            }
        }
        Ok(folds)
    }

    /// Folds a stream. `page`: the first events that are missing.
    async fn fold(
        &self,
        Subject { stream, version, known }: Subject,
        page: Vec<Recorded>,
    ) -> Result<Fold, ReadError> {
        let mut first = Some(page);
        let [known, known_before] = known;
        let mut new = Side::of(&self.new, known, version);
        let mut before = self.before.as_ref().map(|before| Side::of(before, known_before, version));
        let mut fold = Fold { events: version.get() as usize, verdict: Verdict::Same, folded: Vec::new() };
        loop {
            let open = before.iter().chain([&new]).filter(|side| !side.done).map(|side| side.version).min();
            let Some(after) = open else { break };
            let page = match first.take() {
                Some(page) => page,
                None => self.log.read(&stream, after, MAX_PAGE).await?,
            };
            let more = more_may_follow(&page, MAX_PAGE);
            if let Err(fault) = new.evolve(&stream, &page, more).await {
                let why = explain(&self.new, &stream, new.state, &page, fault).await;
                fold.verdict = Verdict::Failed(why);
                return Ok(fold);
            }
            if let Some(side) = &mut before
                && side.evolve(&stream, &page, more).await.is_err()
            {
                // A stream that the running version cannot fold either is no reason to keep that version.
                before = None;
            }
        }
        if let Some(before) = &before
            && before.hash != new.hash
        {
            let why = format!("{stream}: the events fold to another state than on the running version");
            fold.verdict = Verdict::Reshaped(why);
        }
        fold.folded = before.into_iter().chain([new]).filter_map(|side| side.folded(&stream)).collect();
        Ok(fold)
    }
}

/// A component that folds a stream.
struct Side<'a> {
    component: &'a Component,
    /// The version up to which it has.
    version: Version,
    state: Option<Bytes>,
    /// The hash of the state, once all is folded.
    hash: Option<StateHash>,
    done: bool,
    /// The last event that it has folded now.
    mark: Option<LogMark>,
}

impl<'a> Side<'a> {
    /// Begins with what the component has folded of a stream earlier.
    fn of(component: &'a Component, known: Option<Remembered>, end: Version) -> Self {
        let new =
            Self { component, version: Version::START, state: None, hash: None, done: false, mark: None };
        let version = Remembered::usable(known.as_ref(), end);
        match known {
            Some(Remembered { hash, .. }) if version == end => {
                Self { version, hash: Some(hash), done: true, ..new }
            }
            Some(Remembered { state, .. }) if version > Version::START => Self { version, state, ..new },
            _ => new,
        }
    }

    /// Folds those events of a page that follow. `more`: there may be others after the page.
    async fn evolve(&mut self, stream: &StreamId, page: &[Recorded], more: bool) -> Result<(), Fault> {
        if self.done {
            return Ok(());
        }
        let since = &page[page.partition_point(|event| event.version <= self.version)..];
        if let Some(last) = since.last() {
            self.state = evolve(self.component, stream, self.state.as_ref(), since).await?;
            (self.version, self.mark) = (last.version, Some(last.mark()));
        }
        if !more {
            self.done = true;
            self.hash = self.state.as_deref().map(StateHash::of);
        }
        Ok(())
    }

    /// Returns the fold, unless it is remembered already.
    fn folded(self, stream: &StreamId) -> Option<Folded> {
        let (mark, state) = self.mark.zip(self.state)?;
        let remembered = Remembered::of(self.version, &state);
        Some(Folded { stream: stream.clone(), digest: self.component.digest(), remembered, mark })
    }
}

async fn evolve(
    component: &Component,
    stream: &StreamId,
    state: Option<&Bytes>,
    since: &[Recorded],
) -> Result<Option<Bytes>, Fault> {
    let folded = component.evolve(Target { stream, state, since }).await?;
    Ok(folded.map(|folded| folded.state))
}

/// Returns a sentence about a stream that cannot be folded. It names the event that fails, if a single one
/// does.
async fn explain(
    new: &Component,
    stream: &StreamId,
    mut state: Option<Bytes>,
    page: &[Recorded],
    fault: Fault,
) -> String {
    for event in page {
        match evolve(new, stream, state.as_ref(), std::slice::from_ref(event)).await {
            Ok(next) => state = next,
            Err(fault) => {
                let Recorded { version, name, .. } = event;
                return format!("{stream}, version {version}, {name}: {fault}: {}", fault.cause());
            }
        }
    }
    format!("{stream}: {fault}: {}", fault.cause())
}
