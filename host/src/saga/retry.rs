//! The limits of retries: the number of attempts of a step, and the waits between them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::clock::milliseconds;
use crate::model::hash_prefix;

/// The limits of one kind of step. The wait doubles from attempt to attempt, up to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The number of attempts, including the first one. At least 1.
    pub attempts: u32,
    /// The wait before the second attempt, in milliseconds.
    #[serde(rename = "first_wait_ms", deserialize_with = "milliseconds")]
    pub first_wait: Duration,
    /// The longest wait, in milliseconds.
    #[serde(rename = "longest_wait_ms", deserialize_with = "milliseconds")]
    pub longest_wait: Duration,
}

/// The limits of all steps: those of its kind for each step, unless its name is listed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// Steps before the pivot. After the last attempt the saga unwinds.
    pub before_pivot: Retry,
    /// Steps after the pivot. After the last attempt the saga parks.
    pub after_pivot: Retry,
    /// Undos. After the last attempt the other undos still run, and the saga parks.
    pub undo: Retry,
    /// Steps by name: `<saga>/<step>` or `<saga>/<step>/undo`. A `*` at the end stands for any ending.
    pub steps: BTreeMap<String, Retry>,
}

/// The part of a saga that a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    BeforePivot,
    AfterPivot,
    Undo,
}

impl Default for Retries {
    fn default() -> Self {
        let patient = Retry::new(12, Duration::from_millis(100), Duration::from_secs(30));
        Self {
            // One and a half seconds: the client of the saga waits, and nothing is lost by undoing.
            before_pivot: Retry::new(6, Duration::from_millis(50), Duration::from_secs(5)),
            // About two minutes: enough for a service that restarts by itself. Then an operator is needed.
            after_pivot: patient,
            undo: patient,
            steps: BTreeMap::new(),
        }
    }
}

impl Retries {
    /// Returns the name of a limit that allows no attempt at all, if there is one.
    pub(crate) fn without_attempts(&self) -> Option<&str> {
        let kinds =
            [("before_pivot", &self.before_pivot), ("after_pivot", &self.after_pivot), ("undo", &self.undo)];
        let steps = self.steps.iter().map(|(name, retry)| (name.as_str(), retry));
        kinds.into_iter().chain(steps).find(|(_, retry)| retry.attempts == 0).map(|(name, _)| name)
    }

    /// Returns the limits of a step: those of its name, else of the longest matching pattern, else of its
    /// phase.
    pub(super) fn of(&self, saga: &str, step: &str, phase: Phase) -> Retry {
        let name = match phase {
            Phase::BeforePivot | Phase::AfterPivot => format!("{saga}/{step}"),
            Phase::Undo => format!("{saga}/{step}/undo"),
        };
        let pattern = |(pattern, retry): (&'_ String, &'_ Retry)| {
            let prefix = pattern.strip_suffix('*')?;
            name.starts_with(prefix).then_some((prefix.len(), *retry))
        };
        let listed = self.steps.get(&name).copied();
        let matching = || self.steps.iter().filter_map(pattern).max_by_key(|(length, _)| *length);
        listed.or_else(|| matching().map(|(_, retry)| retry)).unwrap_or(match phase {
            Phase::BeforePivot => self.before_pivot,
            Phase::AfterPivot => self.after_pivot,
            Phase::Undo => self.undo,
        })
    }
}

impl Retry {
    /// Allows this number of attempts, with the first and the longest wait between them.
    pub const fn new(attempts: u32, first_wait: Duration, longest_wait: Duration) -> Self {
        Self { attempts, first_wait, longest_wait }
    }

    /// Returns the wait after this number of failures: half to one and a half of the nominal wait, so that
    /// steps that failed together are not retried together.
    pub(super) fn wait(&self, failures: u32, id: &str) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(31));
        let wait = doubled.min(self.longest_wait);
        let [jitter] = hash_prefix::<1>(&[id.as_bytes(), &failures.to_le_bytes()]);
        wait.mul_f64(0.5 + f64::from(jitter) / 255.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn retry(attempts: u32) -> Retry {
        Retry::new(attempts, Duration::from_millis(50), Duration::from_secs(1))
    }

    #[test]
    fn the_closest_name_decides() {
        let named = |(name, attempts): (&str, u32)| (name.to_owned(), retry(attempts));
        let steps = [("a/pay", 2), ("a/pay*", 3), ("a/*", 4), ("a/pay/undo", 5)].map(named).into();
        let retries = Retries { before_pivot: retry(7), after_pivot: retry(8), undo: retry(9), steps };
        let table = [
            ("a", "pay", Phase::BeforePivot, 2),
            ("a", "pay", Phase::AfterPivot, 2),
            ("a", "pay-later", Phase::BeforePivot, 3),
            ("a", "hold", Phase::BeforePivot, 4),
            ("a", "pay", Phase::Undo, 5),
            ("b", "pay", Phase::BeforePivot, 7),
            ("b", "pay", Phase::AfterPivot, 8),
            ("b", "pay", Phase::Undo, 9),
        ];
        for (saga, step, phase, attempts) in table {
            assert_eq!(retries.of(saga, step, phase).attempts, attempts, "{saga}/{step} {phase:?}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_differ_from_command_to_command() {
        for (failures, middle_ms) in [(1, 50), (2, 100), (3, 200), (6, 1_000), (u32::MAX, 1_000)] {
            let middle = Duration::from_millis(middle_ms);
            let waits = ["x", "y", "z"].map(|id| retry(1).wait(failures, id));
            assert!(waits.iter().all(|wait| (middle / 2..=middle * 3 / 2).contains(wait)), "{waits:?}");
            assert_ne!(waits[0], waits[1]);
        }
    }
}
