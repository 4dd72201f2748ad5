//! The sagas of the fixture `unruly`.

#![allow(dead_code, reason = "each file of tests uses its part")]

use std::fs;
use std::path::Path;

use kontor_testkit::host::{Host, Services};
use kontor_testkit::{Command, command};
use serde_json::{Value, json};

/// The most runs of sagas at once.
pub(crate) const RUNS: usize = 4;

/// The fixture as it was built.
pub(crate) fn wasm() -> Vec<u8> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fixtures/unruly.wasm");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` builds it", path.display()))
}

/// The fixture with this configuration.
pub(crate) fn beasts(configuration: &Value) -> Services {
    Services::of(vec![wasm()], &json!({ "unruly": configuration }), RUNS)
}

/// The command `name` for a beast.
pub(crate) fn beast(id: &str, name: &str, payload: Value) -> Command {
    command("beast", id, name, payload)
}

/// Starts a saga by the command that is called like it. Returns the saga's id.
#[track_caller]
pub(crate) fn begin(host: &Host, id: &str, saga: &str, payload: Value) -> String {
    let accepted = host.send(&beast(id, saga, payload)).expect("an unruly beast takes any command");
    accepted.saga.expect("a command that starts a saga").to_string()
}

/// How often a beast has waited: that is what the sagas have beasts do.
pub(crate) fn waits(host: &Host, id: &str) -> u64 {
    host.view("beast", id)["waits"].as_u64().unwrap_or_default()
}

/// Waits until a saga has come to an entry of its journal.
#[track_caller]
pub(crate) fn until(host: &Host, saga: &str, entry: &str) {
    host.until(1, |event| event.stream.id() == saga && &*event.name == entry);
}

/// How a saga stands, without waiting for anything.
pub(crate) fn state(host: &Host, saga: &str) -> &'static str {
    let status = host.run(host.sagas().status(saga)).expect("a journal");
    status.expect("a saga that has begun").state.as_str()
}

/// How a saga has ended.
#[track_caller]
pub(crate) fn end(host: &Host, saga: &str) -> &'static str {
    host.settled(saga).state.as_str()
}

/// The names of a journal's entries.
pub(crate) fn entries(host: &Host, saga: &str) -> Vec<String> {
    host.journal(saga).into_iter().map(|(name, _)| name).collect()
}

/// What stands in the last entry of a saga that is parked.
#[track_caller]
pub(crate) fn parked(host: &Host, saga: &str) -> Value {
    assert_eq!(end(host, saga), "parked");
    let (_, parked) = host.journal(saga).pop().expect("an entry");
    parked
}
