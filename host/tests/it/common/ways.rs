//! The way of each order through its saga, as the journal tells it: the steps of the component that it ran on, in that one's order.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// The steps of `place-order` in the order in which a version takes them; those that are taken at once are one.
pub(crate) type Way = [&'static str; 4];

/// In the plugin.
pub(crate) const RESERVES_FIRST: Way = ["reserve", "pay", "schedule", "confirm"];
/// In the fixture `next-order`.
pub(crate) const PAYS_FIRST: Way = ["pay", "reserve", "schedule", "confirm"];

/// How many orders have been placed, by the component that has done so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) by: BTreeMap<String, usize>,
    /// How many of them have begun on another one.
    pub(crate) moved: usize,
}

#[derive(Default)]
struct Run {
    digest: String,
    moved: bool,
    taken: Vec<String>,
    unwinds: bool,
}

/// Checks of each `place-order` in a log, oldest event first, that it has gone the way of its component: all of it, or up to
/// where it was refused. `ways`: by digest.
#[track_caller]
pub(crate) fn check(events: impl Iterator<Item = Value>, ways: &HashMap<String, Way>) -> Placed {
    let mut runs: HashMap<String, Run> = HashMap::new();
    let mut placed = Placed::default();
    for event in events {
        let Some(saga) = event["stream"].as_str().and_then(|stream| stream.strip_prefix("saga/")) else {
            continue;
        };
        let (name, payload) = (event["name"].as_str().unwrap(), &event["payload"]);
        let digest = || payload["digest"].as_str().unwrap().to_owned();
        if name == "started" && payload["saga"] == "place-order" {
            runs.insert(saga.to_owned(), Run { digest: digest(), ..Run::default() });
        }
        let Some(run) = runs.get_mut(saga) else { continue };
        match name {
            "moved" => (run.digest, run.moved) = (digest(), true),
            "step-done" | "step-refused" | "pivoted" => run.take(payload["name"].as_str().unwrap()),
            "unwinding" => run.unwinds = true,
            "completed" | "compensated" => {
                run.check(saga, &ways[&run.digest]);
                *placed.by.entry(run.digest.clone()).or_default() += 1;
                placed.moved += usize::from(run.moved);
            }
            _ => {}
        }
    }
    placed
}

impl Run {
    fn take(&mut self, step: &str) {
        // `reserve-apple`
        let kind = step.split('-').next().unwrap_or_default();
        if self.taken.last().is_none_or(|last| last != kind) {
            self.taken.push(kind.to_owned());
        }
    }

    #[track_caller]
    fn check(&self, saga: &str, way: &Way) {
        let Self { digest, taken, unwinds, .. } = self;
        let all = if *unwinds { taken.len().min(way.len()) } else { way.len() };
        assert_eq!(*taken, way[..all], "the steps of {saga} on the component {digest}");
    }
}
