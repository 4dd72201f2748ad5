//! The course of a saga.

use std::fmt;

use kontor::model::Recorded;
use serde_json::{Value, json};

use super::difference::difference;
use super::passed;
use crate::command::Command;

/// The course of a saga, from its start to its end, or to the point where it parks.
pub struct Story {
    saga: String,
    journal: Vec<Entry>,
}

/// An entry of the journal.
struct Entry {
    name: String,
    payload: Value,
}

/// The entries about a step, and those about an undo.
const STEPS: [&str; 6] = ["step-done", "step-refused", "step-failed", "pivoted", "query-answered", "waiting"];
const UNDOES: [&str; 2] = ["undone", "undo-failed"];

impl Story {
    pub(super) fn new<'e>(saga: &str, journal: impl Iterator<Item = &'e Recorded>) -> Self {
        let journal = journal
            .map(|event| Entry { name: event.name.as_str().to_owned(), payload: json!(event.payload) })
            .collect();
        Self { saga: saga.to_owned(), journal }
    }

    /// Checks the names of the steps taken, in order: commands, queries and waits, including rejected and
    /// failed ones.
    #[track_caller]
    pub fn then_steps<'s>(&self, expected: impl IntoIterator<Item = &'s str>) -> &Self {
        self.equal("the steps are", &expected.into_iter().collect(), &self.names(&STEPS))
    }

    /// Checks the names of the steps undone, in order; `trigger` is the command that started the saga.
    #[track_caller]
    pub fn then_undoes<'s>(&self, expected: impl IntoIterator<Item = &'s str>) -> &Self {
        self.equal("the undos are", &expected.into_iter().collect(), &self.names(&UNDOES))
    }

    /// Checks the command that a step sent.
    #[track_caller]
    pub fn then_sends(&self, step: &str, expected: &Command) -> &Self {
        let sent = self
            .journal
            .iter()
            .find(|entry| STEPS.contains(&entry.name.as_str()) && entry.payload["name"] == step);
        let sent = sent.map_or(&Value::Null, |entry| &entry.payload["action"]);
        let Command { stream, name, payload } = expected;
        let expected = json!({ "stream": stream, "command": name, "payload": payload });
        self.equal(&format!("the command of {step} is"), &expected, sent)
    }

    /// Checks that the saga completed.
    #[track_caller]
    pub fn then_completed(&self) -> &Self {
        self.end("completed");
        self
    }

    /// Checks that everything was undone because of the rejection with this code.
    #[track_caller]
    pub fn then_compensated(&self, code: &str) -> &Self {
        self.end("compensated");
        let unwinding = self.journal.iter().find(|entry| entry.name == "unwinding");
        let reason = unwinding.map_or(&Value::Null, |entry| &entry.payload["reason"]["code"]);
        self.equal("the reason is", &json!(code), reason)
    }

    /// Checks that the saga is parked. `why`: a part of the reason.
    #[track_caller]
    pub fn then_parked(&self, why: &str) -> &Self {
        let reason = self.end("parked")["why"].as_str().unwrap_or_default();
        assert!(reason.contains(why), "{}: it is parked, but not because of {why:?}\n{self}", self.saga);
        self
    }

    /// Returns `true` if the saga took a step with this name, or undid it.
    pub(super) fn comes_to(&self, step: &str) -> bool {
        let (name, entries) = match step.strip_suffix("/undo") {
            Some(name) => (name, &UNDOES[..]),
            None => (step, &STEPS[..]),
        };
        self.names(entries).as_array().is_some_and(|names| names.contains(&json!(name)))
    }

    fn names(&self, entries: &[&str]) -> Value {
        let entries = self.journal.iter().filter(|entry| entries.contains(&entry.name.as_str()));
        entries.map(|entry| entry.payload["name"].clone()).collect()
    }

    /// Returns the payload of the last entry, which must have this name.
    #[track_caller]
    fn end(&self, expected: &str) -> &Value {
        match self.journal.last() {
            Some(last) if last.name == expected => &last.payload,
            _ => panic!("{}: it is not {expected}\n{self}", self.saga),
        }
    }

    #[track_caller]
    fn equal(&self, what: &str, expected: &Value, got: &Value) -> &Self {
        passed(match difference(expected, got).as_slice() {
            [] => Ok(()),
            lines => Err(format!("{}: {what} not as expected\n  {}\n{self}", self.saga, lines.join("\n  "))),
        });
        self
    }
}

/// The journal, one line per entry.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "what it did:")?;
        for Entry { name, payload } in &self.journal {
            writeln!(f, "  {name} {payload}")?;
        }
        Ok(())
    }
}
