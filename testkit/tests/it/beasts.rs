//! Helpers for the sagas of the fixture `unruly`.

use std::fs;
use std::path::Path;

use kontor::model::SagaId;
use kontor_testkit::host::{Host, Services};
use kontor_testkit::{Command, command};
use serde_json::{Value, json};

/// The maximum number of concurrent saga runs.
pub(crate) const RUNS: usize = 4;

/// Returns the fixture as built.
pub(crate) fn wasm() -> Vec<u8> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fixtures/unruly.wasm");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` builds it", path.display()))
}

/// Returns the fixture with this configuration.
pub(crate) fn beasts(configuration: &Value) -> Services {
    Services::of(vec![wasm()], &json!({ "unruly": configuration }), RUNS)
}

/// Returns the command `name` for a beast.
pub(crate) fn beast(id: &str, name: &str, payload: Value) -> Command {
    command("beast", id, name, payload)
}

/// Starts a saga by the command with its name. Returns the saga's id.
#[track_caller]
pub(crate) fn begin(host: &Host, id: &str, saga: &str, payload: Value) -> SagaId {
    let accepted = host.send(&beast(id, saga, payload)).expect("an unruly beast takes any command");
    accepted.saga.expect("a command that starts a saga")
}

/// Returns how often a beast has waited. Each step of a saga makes a beast wait.
pub(crate) fn waits(host: &Host, id: &str) -> u64 {
    host.view("beast", id)["waits"].as_u64().unwrap_or_default()
}

/// Waits until the journal of a saga has this entry.
#[track_caller]
pub(crate) fn until(host: &Host, saga: &SagaId, entry: &str) {
    host.until(1, |event| *saga == event.stream.id() && event.name == *entry);
}

/// Returns the current state of a saga, without waiting.
pub(crate) fn state(host: &Host, saga: &SagaId) -> &'static str {
    let status = host.run(host.sagas().status(saga)).expect("a journal");
    status.expect("a saga that has begun").state.as_str()
}

/// Waits until a saga has ended or parked. Returns its state.
#[track_caller]
pub(crate) fn end(host: &Host, saga: &SagaId) -> &'static str {
    host.settled(saga).state.as_str()
}

/// Returns the names of a journal's entries.
pub(crate) fn entries(host: &Host, saga: &SagaId) -> Vec<String> {
    host.journal(saga).into_iter().map(|(name, _)| name).collect()
}

/// Returns the last entry's payload of a saga that must be parked.
#[track_caller]
pub(crate) fn parked(host: &Host, saga: &SagaId) -> Value {
    assert_eq!(end(host, saga), "parked");
    let (_, parked) = host.journal(saga).pop().expect("an entry");
    parked
}
