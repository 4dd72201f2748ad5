//! Runs components: everything that touches wasmtime is in here.
//!
//! *Invariant:* nothing outside this module sees a wasmtime type. *Invariant:* an instance that trapped, ran out of
//! time or was refused memory is never used again.

pub(crate) mod bindings;
mod component;
mod console;
mod engine;
mod guest;
mod host;
mod instance;
mod load;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use crate::background::Background;
use crate::model::Json;

pub(crate) use component::{Answered, QueryCall};
pub use component::{Component, Context, Decision, Folded, SagaEnd, Target};
pub(crate) use host::{Access, Guarded, ReadSession, grant_to_add};
pub use host::{Ask, AskFailure, Awaited, Halt, Outcome, Request, Step, Steps};
pub use host::{
    GrantError, HeaderError, HttpClient, HttpFailure, HttpFailureKind, HttpLimits, HttpRequest, HttpResponse,
    Outgoing, Resolve, system_resolver,
};
pub(crate) use instance::Tally;
pub(crate) use load::Compiled;
pub use load::LoadError;

use guest::InstanceData;

/// How deep services may ask each other: a screen asks services, one of which asks another. Each depth has its own
/// instances, so that those who wait can never starve those they wait for.
pub(crate) const MAX_DEPTH: usize = 4;

/// The longest that a call of a command, a query or a projection takes by default, waiting included: less than the half
/// minute after which clients commonly give up.
pub(crate) const CALL_WAIT: Duration = Duration::from_secs(10);

/// What a component may use.
#[derive(Clone, Debug)]
pub struct RuntimeLimits {
    /// Running time of one call, without the time it waits for the host.
    pub call_time: Duration,
    /// Time of one call of a command, a query or a projection, waiting included.
    pub call_wait: Duration,
    /// Memory of one instance.
    pub memory_bytes: usize,
    /// Calls that run at once at each depth.
    pub instances: usize,
    /// Saga runs at once, those included that wait for a step.
    pub sagas: usize,
    /// Whether an instance serves more than one call. Off, hidden state between calls comes to light.
    pub reuse: bool,
    pub http: HttpLimits,
}

impl Default for RuntimeLimits {
    fn default() -> Self {
        Self {
            call_time: Duration::from_secs(1),
            call_wait: CALL_WAIT,
            memory_bytes: 64 << 20,
            instances: 64,
            sagas: 256,
            reuse: true,
            http: HttpLimits::default(),
        }
    }
}

impl RuntimeLimits {
    /// Idle instances kept for the next calls, of all components together.
    fn warm(&self) -> usize {
        2 * self.instances
    }

    /// The instances that can exist at once; the pool is made for as many.
    fn slots(&self) -> u32 {
        let slots = self.instances * (MAX_DEPTH + 1) + self.sagas + self.warm();
        u32::try_from(slots).unwrap_or(u32::MAX)
    }
}

/// The engine and what all components share.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    linker: Linker<InstanceData>,
    cache: engine::CodeCache,
    limits: RuntimeLimits,
    /// By service, what `config.get` answers.
    configuration: HashMap<String, BTreeMap<String, Json>>,
    /// Instances that may run at each depth.
    depths: [Arc<Semaphore>; MAX_DEPTH],
    sagas: Arc<Semaphore>,
    /// Loading, and folding projections.
    background: Arc<Semaphore>,
    warm: AtomicUsize,
    threads: Background,
    _ticker: engine::Ticker,
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("the engine for WebAssembly cannot be made")]
    Engine(#[source] wasmtime::Error),
    #[error("no threads can be started to compile components")]
    Threads(#[source] io::Error),
    #[error("the cache of compiled components cannot be used")]
    Cache(#[source] io::Error),
}

impl Runtime {
    /// `data`: where compiled components are kept. `configuration`: by service, what components may ask for.
    pub fn new(
        data: &Path,
        limits: RuntimeLimits,
        configuration: HashMap<String, BTreeMap<String, Json>>,
    ) -> Result<Self, RuntimeError> {
        let engine = engine::engine(&limits).map_err(RuntimeError::Engine)?;
        let linker = linker(&engine).map_err(RuntimeError::Engine)?;
        let cache = engine::CodeCache::open(data.join("compiled")).map_err(RuntimeError::Cache)?;
        let ticker = engine::Ticker::start(engine.clone()).map_err(RuntimeError::Cache)?;
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let shared = Shared {
            engine,
            linker,
            cache,
            configuration,
            depths: std::array::from_fn(|_| semaphore(limits.instances)),
            sagas: semaphore(limits.sagas),
            background: semaphore(limits.instances),
            warm: AtomicUsize::new(0),
            threads: Background::start().map_err(RuntimeError::Threads)?,
            limits,
            _ticker: ticker,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Runtime {
    /// For what may take its time.
    pub(crate) fn background(&self) -> tokio::runtime::Handle {
        self.shared.threads.handle()
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<InstanceData>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    bindings::Service::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest: &mut InstanceData| guest)?;
    Ok(linker)
}
