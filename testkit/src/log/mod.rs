//! What every event log must do: a conformance suite, a log that fails on purpose, and a workload whose traces in a log
//! can be checked.
//!
//! ```no_run
//! # use std::path::Path;
//! # use kontor::log::EmbeddedLog;
//! # async fn example(dir: &Path) {
//! kontor_testkit::log::conformance(async |name: &str| EmbeddedLog::open(&dir.join(name)).unwrap()).await;
//! # }
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a check that fails is a test that fails")]

mod conformance;
mod faulty;
mod workload;

use std::sync::Arc;

use kontor::log::{Append, EventLog, MAX_PAGE};
use kontor::model::{CommandId, Json, Meta, NewEvent, Position, Recorded, StreamId, Version};
use serde_json::Value;

pub use conformance::conformance;
pub use faulty::{Fault, FaultyLog};
pub use workload::{audit, work};

/// The stream `thing/<id>`.
fn stream(id: &str) -> StreamId {
    StreamId::new("thing", id).expect("a valid id")
}

/// The meta of a command about which nothing matters but its id.
fn meta(command: &CommandId) -> Arc<Meta> {
    Arc::new(Meta {
        command_id: command.clone(),
        command: "do".into(),
        fingerprint: 7,
        correlation_id: "test".into(),
        causation_id: None,
        digest: None,
        time_ms: 1_700_000_000_000,
        actor: "tester".into(),
    })
}

/// `count` events of a new command.
fn append(stream: &StreamId, expected: u64, count: usize) -> Append {
    append_as(&CommandId::new(), stream, expected, count)
}

/// `count` events of a certain command.
fn append_as(command: &CommandId, stream: &StreamId, expected: u64, count: usize) -> Append {
    let event = NewEvent { name: "done".into(), payload: Json::empty_object() };
    let (stream, expected) = (stream.clone(), Version::new(expected));
    Append { stream, expected, events: vec![event; count], meta: meta(command) }
}

/// Events that no command has made, each with its name and its payload, to be put into a stream of which `expected` is the
/// version.
pub fn happened(stream: StreamId, expected: Version, events: &[(&str, Value)]) -> Append {
    let event = |(name, payload): &(&str, Value)| NewEvent {
        name: (*name).into(),
        payload: Json::of(payload).expect("any value can be written as JSON"),
    };
    Append { stream, expected, events: events.iter().map(event).collect(), meta: meta(&CommandId::new()) }
}

/// All events of a log, page by page.
pub async fn everything(log: &dyn EventLog) -> Vec<Recorded> {
    let mut events: Vec<Recorded> = Vec::new();
    loop {
        let after = events.last().map_or(Position::START, |event| event.position);
        let page = log.read_all(after, MAX_PAGE).await.expect("a page of the log");
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// All events of a stream, page by page.
async fn whole_stream(log: &dyn EventLog, stream: &StreamId) -> Vec<Recorded> {
    let mut events: Vec<Recorded> = Vec::new();
    loop {
        let after = events.last().map_or(Version::START, |event| event.version);
        let page = log.read(stream, after, MAX_PAGE).await.expect("a page of the stream");
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}
