//! Garbage from outside at a running host: over HTTP, over NATS, and as components. The host answers with a
//! problem that names what is wrong, and keeps working. `cargo xtask fuzz` sends a million inputs.

mod components;
mod http;
mod nats;
#[path = "../../../src/contract/near.rs"]
mod near;

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::ProptestConfig;
use proptest::strategy::Strategy;
use proptest::test_runner::{TestCaseResult, TestRunner};

/// The outcomes of a run, by their name.
#[derive(Default)]
struct Outcomes(Mutex<BTreeMap<String, u64>>);

impl Outcomes {
    fn count(&self, outcome: &str) {
        *self.0.lock().unwrap().entry(outcome.to_owned()).or_default() += 1;
    }

    /// Prints the outcomes. Returns the number of all, and of those with this start.
    fn print(&self, start: &str) -> (u64, u64) {
        let outcomes = self.0.lock().unwrap();
        outcomes.iter().for_each(|(outcome, number)| println!("{number:9} {outcome}"));
        let chosen = outcomes.iter().filter(|(outcome, _)| outcome.starts_with(start));
        (outcomes.values().sum(), chosen.map(|(_, number)| number).sum())
    }
}

/// Runs a test on the inputs of a strategy. `PROPTEST_CASES` is their number; one that takes as long as
/// `cost` others counts as so many.
#[track_caller]
fn run<S: Strategy>(cost: u32, inputs: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    let config = ProptestConfig::default();
    // Fewer would hardly be a test.
    let cases = (config.cases / cost).max(8);
    let config = ProptestConfig { cases, failure_persistence: None, ..config };
    TestRunner::new(config).run(inputs, test).unwrap_or_else(|failure| panic!("{failure}"));
}
