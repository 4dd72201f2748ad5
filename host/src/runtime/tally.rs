//! The numbers of a component's calls and faults, by the kind of call and its subject.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// Half of the longest time that [`Counters::recent`] goes back.
const GENERATION: Duration = Duration::from_secs(5 * 60);

/// The export of a call.
const PROJECT: &str = "project";

/// The kind of a call, and the command, query, saga or aggregate that it is about: `decide add-stock`. The
/// calls of a projection have no subject, because each takes many events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallName {
    operation: &'static str,
    subject: Arc<str>,
}

impl CallName {
    pub(crate) fn new(operation: &'static str, subject: &Arc<str>) -> Self {
        let subject = if operation == PROJECT { Arc::default() } else { subject.clone() };
        Self { operation, subject }
    }
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if self.subject.is_empty() { Ok(()) } else { write!(f, " {}", self.subject) }
    }
}

/// The numbers of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    /// The calls that failed, or whose answer broke the contract or was an error of a projection.
    pub(crate) faults: u64,
    /// The faults of calls to which an HTTP server or another service had not answered before.
    pub(crate) outages: u64,
}

/// The numbers of calls, by name.
pub(crate) type Tallies = HashMap<CallName, Tally>;

impl Tally {
    /// One fault of a call that is counted by itself.
    pub(super) const FAULT: Self = Self { calls: 0, faults: 1, outages: 0 };

    fn add(&mut self, Self { calls, faults, outages }: Self) {
        self.calls += calls;
        self.faults += faults;
        self.outages += outages;
    }

    /// Returns the numbers since an earlier time.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            faults: self.faults - before.faults,
            outages: self.outages - before.outages,
        }
    }
}

/// Counts the calls of a component. Their names are those of its manifest, so there are not many.
pub(super) struct Counters(Mutex<State>);

struct State {
    counters: HashMap<CallName, Counter>,
    started: Stopwatch,
    /// The number of the generation that is current, from the start on.
    generation: u64,
}

#[derive(Default)]
struct Counter {
    total: Tally,
    current: Tally,
    previous: Tally,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { counters: HashMap::new(), started: Stopwatch::start(), generation: 0 }))
    }

    pub(super) fn count(&self, name: CallName, tally: Tally) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.age();
        let counter = state.counters.entry(name).or_default();
        counter.total.add(tally);
        counter.current.add(tally);
    }

    /// Returns the numbers of all calls so far.
    pub(super) fn total(&self) -> Tallies {
        self.read(|counter| counter.total)
    }

    /// Returns the numbers of the last ten minutes, or of the last five at least.
    pub(super) fn recent(&self) -> Tallies {
        self.read(|counter| {
            let mut recent = counter.current;
            recent.add(counter.previous);
            recent
        })
    }

    fn read(&self, read: impl Fn(&Counter) -> Tally) -> Tallies {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.age();
        state.counters.iter().map(|(name, counter)| (name.clone(), read(counter))).collect()
    }
}

impl State {
    /// Drops the numbers that are too old.
    fn age(&mut self) {
        let generation = self.started.elapsed().as_secs() / GENERATION.as_secs();
        let passed = generation - std::mem::replace(&mut self.generation, generation);
        if passed == 0 {
            return;
        }
        for counter in self.counters.values_mut() {
            let last = std::mem::take(&mut counter.current);
            counter.previous = if passed == 1 { last } else { Tally::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn recent_calls_are_those_of_the_last_minutes() {
        let counters = Counters::new();
        let name = CallName::new("decide", &"create".into());
        let call = Tally { calls: 1, faults: 1, outages: 0 };
        let calls = |tallies: Tallies| tallies[&name].calls;
        for (minutes, expected) in [(0, 1), (4, 2), (4, 3), (4, 2), (30, 1)] {
            tokio::time::advance(Duration::from_secs(60 * minutes)).await;
            counters.count(name.clone(), call);
            assert_eq!(calls(counters.recent()), expected, "after {minutes} minutes more");
        }
        assert_eq!(calls(counters.total()), 5);
    }

    #[test]
    fn a_call_is_named_by_its_kind_and_subject() {
        let named = |operation| CallName::new(operation, &"added".into()).to_string();
        assert_eq!([named("decide"), named(PROJECT)], ["decide added", "project"]);
    }
}
