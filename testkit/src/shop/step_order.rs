//! The step order of each `place-order` saga, read from its journal: a saga takes the steps of the component
//! version that runs it, in the order of that version.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// The steps of `place-order` in the order of one component version. Steps taken at once, such as
/// `reserve-apple` and `reserve-pear`, count as one.
pub type StepOrder = [&'static str; 4];

/// The order of the plugin `order`.
pub const RESERVES_FIRST: StepOrder = ["reserve", "pay", "schedule", "confirm"];
/// The order of the fixture `next-order`.
pub const PAYS_FIRST: StepOrder = ["pay", "reserve", "schedule", "confirm"];

/// The number of `place-order` sagas that have ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The number for each component, by its digest.
    pub by: BTreeMap<String, usize>,
    /// The number of sagas that started on another component and were moved.
    pub moved: usize,
}

#[derive(Default)]
struct Run {
    digest: String,
    moved: bool,
    /// The kinds of steps taken, such as `reserve`, in order.
    taken: Vec<String>,
    /// `true` once a step was rejected and the saga undoes those before it.
    unwinds: bool,
}

/// Checks every `place-order` saga in a log, given oldest event first: a completed saga took all steps of its
/// component's order, a compensated one took them up to the step that was rejected. `orders`: the step order
/// of each component, by digest. Panics if a saga took other steps.
#[track_caller]
pub fn check(events: impl Iterator<Item = Value>, orders: &HashMap<String, StepOrder>) -> Placed {
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
                run.check(saga, &orders[&run.digest]);
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
    fn check(&self, saga: &str, order: &StepOrder) {
        let Self { digest, taken, unwinds, .. } = self;
        let all = if *unwinds { taken.len().min(order.len()) } else { order.len() };
        assert_eq!(*taken, order[..all], "the steps of {saga} on the component {digest}");
    }
}
