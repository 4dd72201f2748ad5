//! The wasmtime engine: the compilation of components, the pool of their memory, and the ticks that limit
//! their time.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::RuntimeLimits;
use crate::error::Chain;
use crate::garbage::{Collection, Garbage, collect_files, partial_extension};
use crate::model::Digest;

/// The time between two checks of running components. A call may exceed its time limit by as much.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Memory that a pooled slot keeps between two instances, so that a fresh one causes no page faults: enough
/// for a service written in Rust.
const KEEP_RESIDENT_BYTES: usize = 2 << 20;

/// A component of WASI 0.2 consists of a main module, an adapter or two and the shims between them.
pub(super) const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
pub(super) const TABLES_PER_COMPONENT: u32 = 8;

/// Creates the engine. If there is no address space for a pool (a small container, a limit on virtual
/// memory), each instance is allocated on demand, which is slower.
pub(super) fn engine(limits: &RuntimeLimits) -> wasmtime::Result<Engine> {
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    Engine::new(&config).or_else(|error| {
        tracing::warn!(
            error = %Chain(error.as_ref()),
            "no address space for a pool of instances; each instance is allocated on demand"
        );
        Engine::new(&base_config())
    })
}

fn base_config() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // Without it a fresh instance costs half. The contract is synchronous WIT; only host functions are async.
    config.concurrency_support(false);
    config
}

fn pool(limits: &RuntimeLimits) -> PoolingAllocationConfig {
    let slots = limits.slots();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * CORE_INSTANCES_PER_COMPONENT)
        .total_memories(slots)
        .total_tables(slots * TABLES_PER_COMPONENT)
        .total_stacks(slots)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memories_per_component(1)
        .max_memory_size(limits.memory_bytes)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// The format of a file with code. Format 1 had the checksum in front.
const FILE_FORMAT: u8 = 2;
/// The length of the checksum of a file with code.
const CHECKSUM_BYTES: usize = 32;
/// The bytes that are read at a time to verify it.
const READ_BYTES: usize = 64 << 10;

/// A thread that raises the engine's epoch. A component that spins can block every task of the async runtime,
/// timers included, but not this thread.
pub(super) struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("kontor-epoch".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within a tick; the panic hook has reported a panic in it.
            let _ = thread.join();
        }
    }
}

/// Compiled components on disk, by the digest of the component and everything that decides how it is
/// compiled.
///
/// A file holds the component as wasmtime serialized it, then the SHA-256 of that. It is mapped into memory,
/// so hosts share it, and the system drops pages that nobody uses. That is native code, so only this cache,
/// which compiles all that it stores, may write there. The checksum protects against damage, not against an
/// attacker with write access to the data directory, who owns the log as well.
pub(super) struct CodeCache {
    dir: PathBuf,
}

impl CodeCache {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Returns the compiled component, from disk if it is there.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        digest: Digest,
        wasm: &[u8],
    ) -> wasmtime::Result<Component> {
        let path = self.path(engine, digest);
        if let Some(component) = read_compiled(engine, &path) {
            return Ok(component);
        }
        let code = engine.precompile_component(wasm)?;
        let kept = write_compiled(&path, &code).map(|()| read_compiled(engine, &path));
        match kept {
            Ok(Some(component)) => return Ok(component),
            // Somebody has changed or removed it already.
            Ok(None) => {}
            Err(error) => tracing::warn!(
                error = %Chain(&error),
                path = %path.display(),
                "failed to cache a compiled component; the next start compiles it again"
            ),
        }
        copy(engine, &code)
    }

    /// Collects the code of all other components, and that of other versions of wasmtime. A folder that is a
    /// symbolic link may be shared with other hosts, so everything in it stays.
    pub(super) fn collect(
        &self,
        engine: &Engine,
        needed: &HashSet<Digest>,
        collection: Collection,
    ) -> io::Result<Garbage> {
        if self.dir.is_symlink() {
            return Ok(Garbage::default());
        }
        let needed: HashSet<_> = needed.iter().map(|digest| file_name(engine, *digest)).collect();
        collect_files(&self.dir, collection, |name| needed.contains(name))
    }

    fn path(&self, engine: &Engine, digest: Digest) -> PathBuf {
        self.dir.join(file_name(engine, digest))
    }
}

/// Returns the file of a component's code. The code depends on the version of wasmtime and on its settings.
fn file_name(engine: &Engine, digest: Digest) -> String {
    let mut hasher = DefaultHasher::new();
    FILE_FORMAT.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{digest}-{:016x}.cwasm", hasher.finish())
}

fn read_compiled(engine: &Engine, path: &Path) -> Option<Component> {
    let mut file = File::open(path).ok()?;
    match is_whole(&mut file) {
        Ok(true) => map(engine, path).ok(),
        Ok(false) | Err(_) => {
            tracing::warn!(
                path = %path.display(),
                "damaged file in the cache of compiled components; compiling it again"
            );
            None
        }
    }
}

/// Returns whether a file ends with the checksum of the rest.
fn is_whole(file: &mut File) -> io::Result<bool> {
    let Some(length) = file.metadata()?.len().checked_sub(CHECKSUM_BYTES as u64) else { return Ok(false) };
    let (mut checksum, mut kept) = (Sha256::new(), [0; CHECKSUM_BYTES]);
    let mut code = BufReader::with_capacity(READ_BYTES, file.take(length));
    loop {
        let read = code.fill_buf()?;
        if read.is_empty() {
            break;
        }
        checksum.update(read);
        let read = read.len();
        code.consume(read);
    }
    file.read_exact(&mut kept)?;
    Ok(kept == <[u8; CHECKSUM_BYTES]>::from(checksum.finalize()))
}

fn write_compiled(path: &Path, code: &[u8]) -> io::Result<()> {
    let checksum: [u8; CHECKSUM_BYTES] = Sha256::digest(code).into();
    let partial = path.with_extension(partial_extension());
    let mut file = File::create(&partial)?;
    file.write_all(code)?;
    file.write_all(&checksum)?;
    std::fs::rename(partial, path)
}

/// Maps the code in a file whose checksum has been verified.
#[allow(unsafe_code, reason = "loading native code is what the cache is for; the proof is beside the block")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: `precompile_component` of this version of wasmtime returned what the file holds: its name has
    // the version, and its checksum is right. Only `write_compiled` writes there, by a rename of a finished
    // file, so neither the file that is mapped nor one that takes its place changes. Bytes from outside the
    // host never get here: `Runtime::load` rejects precompiled artifacts and compiles everything else.
    unsafe { Component::deserialize_file(engine, path) }
}

/// Copies code that could not be kept in a file.
#[allow(unsafe_code, reason = "loading native code is what the cache is for; the proof is beside the block")]
fn copy(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `precompile_component` of this engine has just returned `code`.
    unsafe { Component::deserialize(engine, code) }
}
