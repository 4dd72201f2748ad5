//! Components that misbehave: the call ends as a fault within its limits, and the next call is unaffected.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kontor::error::{Fault, FaultKind};
use kontor::model::{
    Caller, CommandId, CommitHash, Json, Meta, Position, Recorded, Rejection, StreamId, Version,
};
use kontor::runtime::{
    Ask, AskFailure, Component, Context, Decision, HttpClient, HttpLimits, LoadError, Request, Runtime,
    RuntimeLimits, Target,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const LIMITS: RuntimeLimits = RuntimeLimits {
    // Long enough that only a call that never ends exceeds it, however busy the machine is.
    call_time: Duration::from_secs(1),
    call_wait: Duration::from_secs(10),
    memory_bytes: 16 << 20,
    instances: 8,
    sagas: 1,
    reuse: true,
    http: HttpLimits {
        time: Duration::from_secs(5),
        request_bytes: 1 << 20,
        response_bytes: 1 << 20,
        concurrency: 1,
    },
};

/// The limit for the end of a call that runs forever, on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// A component in a runtime with its own folder for compiled code.
struct Bench {
    data: TempDir,
    component: Component,
}

impl Bench {
    async fn new() -> Self {
        let data = TempDir::new().unwrap();
        let component = load(data.path(), unruly()).await.unwrap();
        Self { data, component }
    }

    /// Returns the only file in the cache of compiled code.
    fn compiled(&self) -> PathBuf {
        let mut files = fs::read_dir(self.data.path().join("compiled")).unwrap();
        files.next().unwrap().unwrap().path()
    }
}

async fn load(data: &Path, wasm: Vec<u8>) -> Result<Component, LoadError> {
    Runtime::new(data, LIMITS, HashMap::new()).unwrap().load(wasm).await
}

fn unruly() -> Vec<u8> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fixtures/unruly.wasm");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` builds it", path.display()))
}

struct Nobody;

#[async_trait]
impl Ask for Nobody {
    async fn ask(&self, _: &Caller, request: Request, _depth: usize) -> Result<Json, AskFailure> {
        Err(AskFailure::Unavailable(format!("there is no {}", request.service)))
    }
}

async fn call(component: &Component, command: &str) -> Result<Result<Decision, Rejection>, Fault> {
    let payload = match command {
        "trap" => json!({"message": "the cat sat on the mat"}),
        _ => json!({}),
    };
    call_with(component, command, payload).await
}

async fn call_with(
    component: &Component,
    command: &str,
    payload: Value,
) -> Result<Result<Decision, Rejection>, Fault> {
    let stream = StreamId::new("beast", "b1").unwrap();
    let target = Target { stream: &stream, state: None, since: &[] };
    let context = Context {
        command_id: "c1".into(),
        correlation_id: "r1".into(),
        time_ms: 1_700_000_000_000,
        caller: Caller::named("tester"),
        ask: Arc::new(Nobody),
        http: Arc::new(HttpClient::default()),
    };
    component.decide(target, &command.into(), &Json::of(&payload).unwrap(), &context).await
}

/// Checks that the component works.
async fn check_well(component: &Component) {
    let decision = call(component, "wait").await.unwrap().unwrap();
    assert_eq!(decision.events.len(), 1);
    assert_eq!(decision.events[0].name, "waited");
    assert_eq!(decision.after.unwrap().view.as_str(), r#"{"id":"b1","waits":1}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misbehavior_is_a_fault_that_says_what_happened_and_where() {
    let bench = Bench::new().await;
    check_well(&bench.component).await;
    let table: &[(&str, FaultKind, &[&str])] = &[
        ("loop", FaultKind::Timeout, &["interrupt", "wasm backtrace", "spin"]),
        ("allocate", FaultKind::Memory, &["memory allocation of", "wasm backtrace", "allocate"]),
        ("trap", FaultKind::Trap, &["the cat sat on the mat", "beast.rs", "wasm backtrace", "rust_panic"]),
        ("recurse", FaultKind::Trap, &["call stack exhausted", "wasm backtrace", "recurse"]),
        ("lie", FaultKind::Contract, &[r#"the event "lied" is not in the manifest"#]),
    ];
    for (command, kind, details) in table {
        let started = Instant::now();
        let fault = call(&bench.component, command).await.unwrap_err();
        assert!(started.elapsed() < SOON, "{command} took {:?}", started.elapsed());
        assert_eq!(
            (fault.service.as_str(), &*fault.call, fault.kind),
            ("unruly", &*format!("decide {command}"), *kind)
        );
        for detail in *details {
            assert!(fault.detail.contains(detail), "{command}: no {detail:?} in\n{}", fault.detail);
        }
        check_well(&bench.component).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_the_contract_forbids_is_a_broken_contract_and_not_a_trap() {
    let bench = Bench::new().await;
    let table = [
        ("read-model", "read-model.query must not be called in decide"),
        ("key", r#"config.get: the manifest has no setting "secret""#),
        ("service", "the manifest does not ask for the permission service:stranger"),
        ("requests", "services.query: 257 requests at once, the limit is 256"),
    ];
    for (border, sentence) in table {
        let fault = call_with(&bench.component, "trespass", json!({ "border": border })).await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.cause()),
            (FaultKind::Contract, sentence),
            "{border}: {}",
            fault.detail
        );
        assert!(fault.detail.contains("wasm backtrace"), "{border}: {}", fault.detail);
        check_well(&bench.component).await;
    }
    let stream = StreamId::new("beast", "b1").unwrap();
    let trespassed = Recorded {
        position: Position::new(1),
        stream: stream.clone(),
        version: Version::new(1),
        index: 0,
        hash: CommitHash::GENESIS,
        name: "trespassed".into(),
        payload: Json::of(&json!({})).unwrap(),
        meta: Arc::new(Meta {
            command: "trespass".into(),
            correlation_id: "r1".into(),
            ..Meta::of(CommandId::from_key("c1"), &Caller::named("tester"))
        }),
    };
    let target = Target { stream: &stream, state: None, since: &[trespassed] };
    let fault = bench.component.evolve(target).await.unwrap_err();
    let sentence = "services.query must not be called in evolve";
    assert_eq!((fault.kind, fault.cause()), (FaultKind::Contract, sentence), "{}", fault.detail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_component_prints_neither_holds_it_up_nor_fails_it() {
    let bench = Bench::new().await;
    let decision = call(&bench.component, "babble").await.unwrap().unwrap();
    assert_eq!(decision.events[0].name, "babbled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_calls_leave_the_good_ones_beside_them_untouched() {
    let bench = Bench::new().await;
    let mut calls = JoinSet::new();
    for number in 0..200 {
        let component = bench.component.clone();
        calls.spawn(async move {
            let (command, kind) = match number % 20 {
                0 if number % 100 == 0 => ("loop", FaultKind::Timeout),
                1 | 2 => ("allocate", FaultKind::Memory),
                3..6 => ("trap", FaultKind::Trap),
                6 | 7 => ("recurse", FaultKind::Trap),
                8 => ("lie", FaultKind::Contract),
                _ => return check_well(&component).await,
            };
            assert_eq!(call(&component, command).await.unwrap_err().kind, kind, "{command}");
        });
    }
    while let Some(ended) = calls.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_components_of_the_contract_are_loaded() {
    let bench = Bench::new().await;
    let cached = fs::read(bench.compiled()).unwrap();
    // The cache's checksum follows the native code.
    let native_code = cached[..cached.len() - 32].to_vec();
    let table = [
        (b"#!/bin/sh".to_vec(), "this is no WebAssembly file"),
        (Vec::new(), "this is no WebAssembly file"),
        (cached, "this is precompiled native code"),
        (native_code, "this is precompiled native code"),
        (b"\0asm\x01\0\0\0".to_vec(), "this is a core module"),
        (b"\0asm\x0d\0\x01\0\xff".to_vec(), "this component cannot be compiled"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "it does not implement the world"),
        (component_importing("acme:tools/hammer"), "it imports acme:tools/hammer"),
        (component_importing("wasi:sockets/tcp@0.2.6"), "it imports wasi:sockets/tcp@0.2.6"),
    ];
    for (bytes, reason) in table {
        let error = load(bench.data.path(), bytes).await.err().expect(reason).to_string();
        assert!(error.starts_with(reason), "expected {reason:?}, got {error:?}");
    }
}

/// Returns a component that only imports one empty instance, in the binary format.
fn component_importing(name: &str) -> Vec<u8> {
    let preamble = b"\0asm\x0d\0\x01\0";
    let types = b"\x07\x03\x01\x42\0";
    let length = u8::try_from(name.len()).unwrap();
    let import = [&[1, 0, length][..], name.as_bytes(), &[5, 0]].concat();
    let imports = [&[10, u8::try_from(import.len()).unwrap()][..], &import].concat();
    [&preamble[..], types, &imports].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_compiled_code_is_compiled_again_and_never_run() {
    let bench = Bench::new().await;
    let path = bench.compiled();
    let sound = fs::read(&path).unwrap();
    let damages: [fn(&mut Vec<u8>); 3] =
        [|file| *file.last_mut().unwrap() ^= 1, |file| file.truncate(file.len() / 2), |file| file.clear()];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut file = sound.clone();
        damage(&mut file);
        fs::write(&path, file).unwrap();
        check_well(&load(bench.data.path(), unruly()).await.unwrap()).await;
        assert!(fs::read(&path).unwrap() == sound, "damage {number} has not been mended");
    }
}
