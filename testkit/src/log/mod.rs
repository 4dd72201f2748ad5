//! Tests for event logs: a conformance suite, a log that fails on purpose, and a workload whose events can be
//! audited.
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
use kontor::model::{Caller, CommandId, Digest, Json, Meta, NewEvent, Position, Recorded, StreamId, Version};
use serde_json::Value;

pub use conformance::conformance;
pub use faulty::{Fault, FaultyLog};
pub use workload::{audit, work};

/// Returns the stream `thing/<id>`.
fn stream(id: &str) -> StreamId {
    StreamId::new("thing", id).expect("a valid id")
}

/// Returns metadata in which every field has a value.
fn full_meta() -> Meta {
    Meta {
        command_id: CommandId::of_step(&"saga-1".into(), "reserve"),
        command: "reserve".into(),
        fingerprint: u64::MAX,
        correlation_id: "caf\u{e9} \"quoted\"".into(),
        causation_id: Some("0199/3".into()),
        digest: Some(Digest::of(b"a component")),
        time_ms: 1_700_000_000_123,
        actor: "ada".into(),
        roles: ["clerk".into(), "auditor".into()].into(),
        on_behalf_of: Some("eve".into()),
        via: Some("saga:saga-1".into()),
    }
}

/// Returns the meta of a command of which only the id matters.
fn meta(command: &CommandId) -> Arc<Meta> {
    Arc::new(Meta {
        command: "do".into(),
        fingerprint: 7,
        correlation_id: "test".into(),
        time_ms: 1_700_000_000_000,
        ..Meta::of(command.clone(), &Caller::named("tester"))
    })
}

/// Returns an append of `count` events of a new command.
fn append(stream: &StreamId, expected: u64, count: usize) -> Append {
    append_as(&CommandId::new(), stream, expected, count)
}

/// Returns an append of `count` events of this command.
fn append_as(command: &CommandId, stream: &StreamId, expected: u64, count: usize) -> Append {
    let event = NewEvent { name: "done".into(), payload: Json::empty_object() };
    let (stream, expected) = (stream.clone(), Version::new(expected));
    Append { events: vec![event; count], meta: meta(command), ..Append::nothing(stream, expected) }
}

/// Returns an append of events that no command has made, each with its name and its payload. `expected`: the
/// version of the stream before them.
pub fn happened(stream: StreamId, expected: Version, events: &[(&str, Value)]) -> Append {
    let event = |(name, payload): &(&str, Value)| NewEvent {
        name: (*name).into(),
        payload: Json::of(payload).expect("any value can be written as JSON"),
    };
    let (events, meta) = (events.iter().map(event).collect(), meta(&CommandId::new()));
    Append { events, meta, ..Append::nothing(stream, expected) }
}

/// Returns all events of a log, read page by page.
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

/// Returns all events of a stream, read page by page.
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
