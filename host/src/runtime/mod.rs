//! Runs components. Everything that touches wasmtime is in here.
//!
//! *Invariant:* nothing outside this module sees a wasmtime type.
//!
//! *Invariant:* an instance that trapped, exceeded a limit or was denied an import is never used again.

pub(crate) mod bindings;
mod call;
mod component;
mod console;
mod engine;
mod host;
mod instance;
mod instance_data;
mod load;
mod log_quota;
mod permissions;
mod places;
mod step_watch;
mod tally;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::background::Background;
use crate::garbage::{Collection, Garbage};
use crate::model::{Digest, Json};

pub use bindings::NotJson;
pub(crate) use component::{Answered, QueryCall};
pub use component::{Component, Context, Decision, Folded, SagaEnd, Target};
pub use host::{Action, Ask, AskFailure, Awaited, Halt, Outcome, Request, STEP_ZERO, Step, Steps};
pub use host::{
    GrantError, HeaderError, HttpClient, HttpFailure, HttpFailureKind, HttpLimits, HttpRequest, HttpResponse,
    Outgoing, Resolve, system_resolver,
};
pub(crate) use host::{Guarded, ReadSession, grant_errors, grant_to_add};
pub(crate) use load::Compiled;
pub use load::LoadError;
pub(crate) use permissions::Grants;
pub(crate) use tally::{CallName, Tallies, Tally};

use call::ContractImports;
use instance_data::{InstanceData, Secret};
use permissions::GrantsInForce;
use places::{EXISTING, Places};

/// Maximum depth of queries between services: a screen asks services, one of which asks another. Each depth
/// has its own instances, so that waiting calls never starve the calls that they wait for.
pub(crate) const MAX_DEPTH: usize = 4;

/// Default time limit of a call of a command, a query or a projection, waiting included. Clients commonly
/// give up after half a minute.
pub(crate) const CALL_WAIT: Duration = Duration::from_secs(10);

/// The limits of components.
#[derive(Clone, Debug)]
pub struct RuntimeLimits {
    /// Running time of one call, without the time it waits for the host.
    pub call_time: Duration,
    /// Time of one call of a command, a query or a projection, waiting included.
    pub call_wait: Duration,
    /// Memory of one instance.
    pub memory_bytes: usize,
    /// Number of calls that run at once at each depth.
    pub instances: usize,
    /// Number of saga runs at once, including those that wait for a step.
    pub sagas: usize,
    /// True if an instance serves more than one call. Without reuse, hidden state between calls is
    /// discovered.
    pub reuse: bool,
    /// The limits of HTTP requests.
    pub http: HttpLimits,
}

impl Default for RuntimeLimits {
    fn default() -> Self {
        Self {
            call_time: Duration::from_secs(1),
            call_wait: CALL_WAIT,
            memory_bytes: 64 << 20,
            instances: 64,
            sagas: 512,
            reuse: true,
            http: HttpLimits::default(),
        }
    }
}

impl RuntimeLimits {
    /// Returns the number of idle instances that are kept for the next calls, of all components together.
    fn warm(&self) -> usize {
        2 * self.instances
    }

    /// Returns the number of instances that can exist at once, which is the size of the pool.
    fn slots(&self) -> u32 {
        let slots = self.instances * (EXISTING * MAX_DEPTH + 1) + self.sagas + self.warm();
        u32::try_from(slots).unwrap_or(u32::MAX)
    }
}

/// The engine and all that components share. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    linker: Linker<InstanceData>,
    cache: engine::CodeCache,
    limits: RuntimeLimits,
    /// The values that `config.get` returns, by service and key.
    configuration: HashMap<String, BTreeMap<String, Json>>,
    grants: Arc<GrantsInForce>,
    secret: OnceLock<Secret>,
    places: Places,
    warm: AtomicUsize,
    threads: Background,
    _ticker: engine::Ticker,
}

/// The reason why the runtime cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// wasmtime rejects the configuration.
    #[error("the engine for WebAssembly cannot be created")]
    Engine(#[source] wasmtime::Error),
    /// The background threads cannot start.
    #[error("no threads can be started to compile components")]
    Threads(#[source] io::Error),
    /// The thread that raises the engine's epoch cannot start.
    #[error("no thread can be started to limit the time of calls")]
    Ticker(#[source] io::Error),
    /// The folder of compiled components cannot be created.
    #[error("the cache of compiled components cannot be used")]
    Cache(#[source] io::Error),
}

impl Runtime {
    /// Starts the engine and its threads. `data`: the folder that holds the cache of compiled components.
    /// `configuration`: the values that components may read, by service and key.
    pub fn new(
        data: &Path,
        limits: RuntimeLimits,
        configuration: HashMap<String, BTreeMap<String, Json>>,
    ) -> Result<Self, RuntimeError> {
        let engine = engine::engine(&limits).map_err(RuntimeError::Engine)?;
        let linker = linker(&engine).map_err(RuntimeError::Engine)?;
        let cache = engine::CodeCache::open(data.join("compiled")).map_err(RuntimeError::Cache)?;
        let ticker = engine::Ticker::start(engine.clone()).map_err(RuntimeError::Ticker)?;
        let inner = Inner {
            engine,
            linker,
            cache,
            configuration,
            grants: Arc::default(),
            secret: OnceLock::new(),
            places: Places::new(&limits),
            warm: AtomicUsize::new(0),
            threads: Background::start().map_err(RuntimeError::Threads)?,
            limits,
            _ticker: ticker,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Runtime {
    /// Lets components use only what is granted: these grants, and those that are added later. Without this,
    /// each may use what its manifest asks for.
    pub(crate) fn enforce_grants(&self, grants: Grants) {
        self.inner.grants.enforce(grants);
    }

    /// Sets the secret that random numbers of components also follow from. Only the first one counts:
    /// those of a call stay the same when it is repeated.
    pub(crate) fn seed(&self, secret: &[u8; 32]) {
        // Err: it is set.
        let _ = self.inner.secret.set(*secret);
    }

    /// Adds grants.
    pub(crate) fn grant(&self, grants: Grants) {
        self.inner.grants.add(grants);
    }

    /// Returns the values that `config.get` returns, by service and key.
    pub(crate) fn configuration(&self) -> &HashMap<String, BTreeMap<String, Json>> {
        &self.inner.configuration
    }

    /// Collects the compiled code of all other components.
    pub(crate) fn collect_code(
        &self,
        needed: &HashSet<Digest>,
        collection: Collection,
    ) -> io::Result<Garbage> {
        self.inner.cache.collect(&self.inner.engine, needed, collection)
    }

    /// Returns the threads for work that is not urgent.
    pub(crate) fn background(&self) -> tokio::runtime::Handle {
        self.inner.threads.handle()
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<InstanceData>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    bindings::Service::add_to_linker::<_, ContractImports>(&mut linker, InstanceData::caller)?;
    Ok(linker)
}
