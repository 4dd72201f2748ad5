//! Component files, and the runtime that runs them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test without a thread to run on, or without a component, is a test that fails"
)]

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kontor::contract::Manifest;
use kontor::error::with_causes;
use kontor::model::Json;
use kontor::runtime::{Component, Runtime, RuntimeError, RuntimeLimits};

/// The concurrent calls in one test, which makes them one after another. Each costs address space, and many
/// tests run at once.
const INSTANCES: usize = 2;
const SAGAS: usize = 1;

/// The executor that waits for components on behalf of tests, which are plain functions.
static EXECUTOR: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a thread to run components on")
});

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    EXECUTOR.block_on(future)
}

/// One component twice: on instances that serve call after call, as in production, and on a fresh instance
/// for each call.
pub(crate) struct Bench {
    pub(crate) reused: Component,
    pub(crate) fresh: Component,
    /// The runtime of the fresh one.
    pub(crate) runtime: Runtime,
}

impl Bench {
    /// Loads a component. `name`: the service's name, under which it is configured.
    pub(crate) fn new(name: &str, wasm: &[u8], config: &BTreeMap<String, Json>) -> Result<Self, String> {
        let load = |reuse| {
            block_on(load(name, wasm, config, reuse))
                .map_err(|error| format!("{name}: {}", with_causes(&*error)))
        };
        let (_, reused) = load(true)?;
        let (runtime, fresh) = load(false)?;
        let bench = Self { reused, fresh, runtime };
        let manifest = bench.manifest();
        if manifest.service != *name {
            return Err(format!("{name}.wasm holds the service {}: call the file like it", manifest.service));
        }
        match config.keys().find(|key| !manifest.settings.iter().any(|setting| setting.key == **key)) {
            Some(key) => Err(format!("the manifest of {name} does not ask for the configuration {key:?}")),
            None => Ok(bench),
        }
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        self.reused.manifest()
    }
}

async fn load(
    name: &str,
    wasm: &[u8],
    config: &BTreeMap<String, Json>,
    reuse: bool,
) -> Result<(Runtime, Component), Box<dyn Error>> {
    let limits = RuntimeLimits { instances: INSTANCES, sagas: SAGAS, reuse, ..RuntimeLimits::default() };
    let runtime = runtime(limits, HashMap::from([(name.to_owned(), config.clone())]))?;
    let component = runtime.load(wasm.to_vec()).await?;
    Ok((runtime, component))
}

/// Returns a runtime whose compiled code all tests share. `config`: the configuration of each service.
pub(crate) fn runtime(
    limits: RuntimeLimits,
    config: HashMap<String, BTreeMap<String, Json>>,
) -> Result<Runtime, RuntimeError> {
    Runtime::new(&target().join("testkit"), limits, config)
}

/// Returns the component of a service, or fails the test. The file is the output of `cargo xtask build` in
/// the repository, or that of cargo itself in a package that stands alone.
#[track_caller]
pub(crate) fn built(service: &str) -> Vec<u8> {
    let folder = env::var_os("KONTOR_COMPONENTS").map_or_else(|| target().join("plugins"), PathBuf::from);
    let file = folder.join(service).with_extension("wasm");
    let alone = target().join("wasm32-wasip2/release").join(service.replace('-', "_")).with_extension("wasm");
    let read = fs::read(&file).or_else(|error| fs::read(alone).map_err(|_| error));
    read.unwrap_or_else(|error| {
        panic!(
            "{}: {error}\nBuild it first: `cargo xtask build` in the repository, \
             `cargo build --release --target wasm32-wasip2` in a package of its own",
            file.display()
        )
    })
}

/// Returns cargo's target directory: that of the environment, or the workspace's own.
pub(crate) fn target() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let workspace = package.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.unwrap_or_else(|| Path::new(".")).join(target)
}
