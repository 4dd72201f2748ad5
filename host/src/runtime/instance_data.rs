//! The data of one instance: its WASI, its limits, its identity and the running call.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::TryRng;
use sha2::{Digest as _, Sha256};
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

use super::RuntimeLimits;
use super::call::Scope;
use super::console::Console;
use super::engine::{CORE_INSTANCES_PER_COMPONENT, TABLES_PER_COMPONENT};
use super::host::{HttpAccess, HttpHooks};
use super::log_quota::LogQuota;
use super::permissions::GrantsInForce;
use crate::contract::{Manifest, Schemas};
use crate::model::{Digest, Json, ServiceName};

/// Tables hold function pointers; a service of ordinary size has some thousands.
const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Maximum number of WASI resources of an instance: a request over HTTP has some ten. They are the host's
/// memory.
const MAX_RESOURCES: usize = 1_000;
/// Maximum size of one set of HTTP fields that a component makes.
const MAX_FIELDS_BYTES: usize = 32 << 10;

/// The part of the seed of random numbers that clients do not know.
pub(super) type Secret = [u8; 32];

/// A component that the host knows by name, as its imports see it.
pub(crate) struct Identity {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) digest: Digest,
    /// The values that `config.get` returns, by key.
    pub(crate) config: BTreeMap<String, Json>,
    pub(crate) http: HttpAccess,
    pub(super) grants: Arc<GrantsInForce>,
    pub(super) log_quota: LogQuota,
    /// The schemas of its commands and queries.
    pub(crate) schemas: Schemas,
}

/// The data of a store.
pub(crate) struct InstanceData {
    pub(super) wasi: WasiCtx,
    pub(super) http_ctx: WasiHttpCtx,
    pub(super) http: HttpHooks,
    pub(super) table: ResourceTable,
    pub(super) console: Console,
    pub(super) memory: MemoryLimit,
    /// Ticks of the engine's epoch that the running call may still use.
    pub(super) ticks_left: u64,
    pub(super) moment: Arc<DeterministicContext>,
    /// None before the manifest is known.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The running call.
    pub(crate) scope: Scope,
}

impl InstanceData {
    pub(super) fn new(identity: Option<Arc<Identity>>, limits: &RuntimeLimits, secret: Secret) -> Self {
        let moment = Arc::new(DeterministicContext { secret, ..DeterministicContext::default() });
        let console = Console::default();
        let wasi = WasiCtx::builder()
            .wall_clock(RecordedClock(moment.clone()))
            .monotonic_clock(RecordedClock(moment.clone()))
            .secure_random(SeededRandom(moment.clone()))
            .insecure_random(SeededRandom(moment.clone()))
            .insecure_random_seed(hash_seed(&secret))
            .stdout(console.clone())
            .stderr(console.clone())
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let mut http_ctx = WasiHttpCtx::new();
        http_ctx.set_field_size_limit(MAX_FIELDS_BYTES);
        Self {
            wasi,
            http_ctx,
            http: HttpHooks::new(identity.clone(), limits.http),
            table,
            console,
            memory: MemoryLimit { max_bytes: limits.memory_bytes, used_bytes: 0, denied: false },
            ticks_left: 0,
            moment,
            identity,
            scope: Scope::default(),
        }
    }
}

/// Returns the service's name, or a phrase for a component whose manifest is not known yet.
pub(crate) fn service_name(identity: Option<&Identity>) -> ServiceName {
    identity.map_or_else(
        || "a component that is being loaded".into(),
        |identity| identity.manifest.service.clone(),
    )
}

impl WasiView for InstanceData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Limits the memory of an instance, and remembers whether it was denied more.
pub(super) struct MemoryLimit {
    max_bytes: usize,
    pub(super) used_bytes: usize,
    pub(super) denied: bool,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // All memories of the instance count together.
        let used_bytes = self.used_bytes.saturating_add(desired.saturating_sub(current));
        let granted = used_bytes <= self.max_bytes;
        self.denied |= !granted;
        if granted {
            self.used_bytes = used_bytes;
        }
        Ok(granted)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_PER_COMPONENT as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_COMPONENT as usize
    }
}

/// The time and the random numbers of a call: the same on every replay.
#[derive(Default)]
pub(super) struct DeterministicContext {
    secret: Secret,
    time_ms: AtomicU64,
    random: Mutex<Keystream>,
    used: AtomicBool,
}

impl DeterministicContext {
    pub(super) fn set(&self, time_ms: u64, id: &Arc<str>) {
        self.time_ms.store(time_ms, Ordering::Relaxed);
        *self.random.lock().unwrap_or_else(PoisonError::into_inner) =
            Keystream { secret: self.secret, ..Keystream::new(id.clone()) };
        self.used.store(false, Ordering::Relaxed);
    }

    /// Returns whether the component asked for the time or for random numbers.
    pub(super) fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }
}

/// SHA-256 of a counter, the secret and the id, which a client may choose: random enough for a component,
/// and the same in every version of the host.
#[derive(Default)]
struct Keystream {
    secret: Secret,
    id: Option<Arc<str>>,
    block: [u8; 32],
    used: usize,
    blocks: u64,
}

impl Keystream {
    fn new(id: Arc<str>) -> Self {
        Self { id: Some(id), used: 32, ..Self::default() }
    }

    fn next_byte(&mut self) -> u8 {
        if self.used == self.block.len() {
            let mut hash = Sha256::new();
            hash.update(self.blocks.to_le_bytes());
            hash.update(self.secret);
            hash.update(self.id.as_deref().unwrap_or_default());
            self.block = hash.finalize().into();
            self.blocks += 1;
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }
}

/// Returns the seed of a component's hash tables: the same at each replay, and unknown to clients, who
/// could else choose keys that collide.
fn hash_seed(secret: &Secret) -> u128 {
    let mut seed = Keystream { secret: *secret, ..Keystream::new("hash tables".into()) };
    u128::from_le_bytes(std::array::from_fn(|_| seed.next_byte()))
}

struct SeededRandom(Arc<DeterministicContext>);

impl TryRng for SeededRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.used.store(true, Ordering::Relaxed);
        let mut keystream = self.0.random.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.fill_with(|| keystream.next_byte());
        Ok(())
    }
}

/// A clock that stands still at the recorded time of the call.
struct RecordedClock(Arc<DeterministicContext>);

impl RecordedClock {
    fn time(&self) -> Duration {
        self.0.used.store(true, Ordering::Relaxed);
        Duration::from_millis(self.0.time_ms.load(Ordering::Relaxed))
    }
}

impl HostWallClock for RecordedClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.time()
    }
}

impl HostMonotonicClock for RecordedClock {
    fn resolution(&self) -> u64 {
        Duration::from_millis(1).as_nanos() as u64
    }

    fn now(&self) -> u64 {
        self.time().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_is_the_same_for_the_same_id() {
        let draw_with = |secret: Secret, id: &str| {
            let moment = Arc::new(DeterministicContext { secret, ..DeterministicContext::default() });
            moment.set(7, &id.into());
            let mut bytes = [0; 100];
            SeededRandom(moment).try_fill_bytes(&mut bytes).unwrap();
            bytes
        };
        let draw = |id| draw_with([7; 32], id);
        assert_eq!(draw("a"), draw("a"));
        assert_ne!(draw("a"), draw("b"));
        assert_ne!(draw("a"), draw_with([8; 32], "a"), "who knows the id knows nothing");
        assert_eq!(hash_seed(&[7; 32]), hash_seed(&[7; 32]));
        assert_ne!(hash_seed(&[7; 32]), hash_seed(&[8; 32]));
    }

    #[test]
    fn clocks_show_the_time_of_the_call() {
        let moment = Arc::new(DeterministicContext::default());
        moment.set(1_700_000_000_123, &"a".into());
        let clock = RecordedClock(moment.clone());
        assert!(!moment.used());
        assert_eq!(HostWallClock::now(&clock), Duration::from_millis(1_700_000_000_123));
        assert_eq!(HostMonotonicClock::now(&clock), 1_700_000_000_123_000_000);
        assert!(moment.used());
    }
}
