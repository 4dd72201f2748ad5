//! The components that may still be needed, by digest: those that run, and those that a saga has started on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use super::component_store_nats::Bucket;
use super::registry::{Deployed, Registry};
use crate::garbage::{Collection, Garbage, collect_files, partial_extension};
use crate::model::{Digest, ServiceName};
use crate::runtime::{Component, Grants, LoadError, Runtime};

/// Component files by digest: `components/<digest>.wasm`.
#[derive(Clone)]
pub struct Store {
    dir: PathBuf,
    /// The store of the hosts that share the log, if it is shared.
    bucket: Option<Bucket>,
}

impl Store {
    /// Opens the store in a data directory.
    pub fn open(data: &Path) -> io::Result<Self> {
        let dir = Self::directory(data);
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, bucket: None })
    }

    /// Returns the directory of the store in a data directory.
    pub fn directory(data: &Path) -> PathBuf {
        data.join("components")
    }

    /// Returns the same store with that of the hosts that share the log, if it is shared.
    pub fn shared(self, bucket: Option<Bucket>) -> Self {
        Self { bucket, ..self }
    }

    /// Writes a component, unless it is stored already. It is on disk when this returns.
    pub fn keep(&self, wasm: &[u8]) -> io::Result<()> {
        let file = self.file(Digest::of(wasm));
        if file.exists() {
            return Ok(());
        }
        let partial = file.with_extension(partial_extension());
        let mut written = File::create(&partial)?;
        written.write_all(wasm)?;
        written.sync_all()?;
        fs::rename(partial, file)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Reads a component. Returns none if it is not stored, or damaged.
    pub(crate) fn read(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.file(digest)) {
            Ok(wasm) => Ok(Some(wasm).filter(|wasm| Digest::of(wasm) == digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a component, and fetches it from the shared store if it is not stored here.
    pub(crate) async fn fetch(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        if let Some(wasm) = self.read(digest)? {
            return Ok(Some(wasm));
        }
        let Some(bucket) = &self.bucket else { return Ok(None) };
        let wasm = bucket.get(digest).await?;
        wasm.iter().try_for_each(|wasm| self.keep(wasm))?;
        Ok(wasm)
    }

    /// Writes a component here, and to the shared store.
    pub(crate) async fn keep_for_all(&self, wasm: &[u8]) -> io::Result<()> {
        self.keep(wasm)?;
        self.share(wasm).await
    }

    /// Writes a component to the shared store.
    pub(crate) async fn share(&self, wasm: &[u8]) -> io::Result<()> {
        match &self.bucket {
            Some(bucket) => bucket.put(wasm).await,
            None => Ok(()),
        }
    }

    /// Opens the files of all components. A file that is deleted afterwards can still be read.
    pub fn files(&self) -> io::Result<BTreeMap<Digest, File>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let digest = path.file_name().and_then(|name| digest_of(name.to_str()?));
            let Some(digest) = digest else { continue };
            match File::open(path) {
                Ok(file) => drop(files.insert(digest, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    /// Collects all other components.
    fn collect(&self, needed: &HashSet<Digest>, collection: Collection) -> io::Result<Garbage> {
        collect_files(&self.dir, collection, |name| {
            digest_of(name).is_some_and(|name| needed.contains(&name))
        })
    }

    /// Collects all other components of the shared store. None: it is not shared.
    async fn collect_shared(
        &self,
        needed: &HashSet<Digest>,
        collection: Collection,
    ) -> io::Result<Option<Garbage>> {
        match &self.bucket {
            Some(bucket) => bucket.collect(needed, collection).await.map(Some),
            None => Ok(None),
        }
    }

    fn file(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{digest}.wasm"))
    }
}

/// Returns the digest that a file has in its name. Other files are components that are still being written.
fn digest_of(name: &str) -> Option<Digest> {
    name.strip_suffix(".wasm")?.parse().ok()
}

/// The reason why an earlier component is not available.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The component was deleted.
    #[error("the component {} is not kept any more", .0.short())]
    Gone(Digest),
    /// The component cannot be read.
    #[error("the component {} cannot be read", digest.short())]
    Read {
        /// The digest of the component.
        digest: Digest,
        /// The cause.
        source: io::Error,
    },
    /// No key that this host trusts has signed the component.
    #[error("the component {} may not run on this host", digest.short())]
    Untrusted {
        /// The digest of the component.
        digest: Digest,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The component does not load.
    #[error("the component {} cannot be run", digest.short())]
    Load {
        /// The digest of the component.
        digest: Digest,
        /// The cause.
        source: LoadError,
    },
}

/// Fails if an earlier component may not run on this host.
pub type Trust = Arc<dyn Fn(Digest) -> BoxFuture<'static, Result<(), PastError>> + Send + Sync>;

/// The components that run, and the earlier ones that sagas still need.
pub struct Components {
    registry: Arc<Registry>,
    runtime: Runtime,
    store: Store,
    /// None: all components may run.
    trust: Option<Trust>,
    /// The earlier components. Each is loaded once, on first use.
    past: Mutex<HashMap<Digest, Arc<OnceCell<Component>>>>,
    /// The component that answers from the read model of each service.
    readers: Mutex<HashMap<ServiceName, Digest>>,
    /// The components of the releases that may be rolled back to.
    releases: Mutex<HashSet<Digest>>,
}

impl Components {
    /// Returns the components of a host.
    pub fn new(registry: Arc<Registry>, runtime: Runtime, store: Store) -> Self {
        Self {
            registry,
            runtime,
            store,
            trust: None,
            past: Mutex::default(),
            readers: Mutex::default(),
            releases: Mutex::default(),
        }
    }

    /// Asks `trust` before it loads an earlier component.
    pub fn trusting(self, trust: Trust) -> Self {
        Self { trust: Some(trust), ..self }
    }

    /// Returns the running set of services.
    pub fn current(&self) -> Arc<Deployed> {
        self.registry.current()
    }

    /// Returns the component with this digest, whether it runs or ran before.
    pub async fn get(&self, digest: Digest) -> Result<Component, PastError> {
        let deployed = self.current();
        if let Some(component) = deployed.services().find(|component| component.digest() == digest) {
            return Ok(component.clone());
        }
        let cell = {
            let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
            past.entry(digest).or_default().clone()
        };
        let component = cell.get_or_try_init(|| async {
            if let Some(trust) = &self.trust {
                trust(digest).await?;
            }
            let wasm = self.store.fetch(digest).await;
            let wasm = wasm.map_err(|source| PastError::Read { digest, source })?;
            let wasm = wasm.ok_or(PastError::Gone(digest))?;
            self.runtime.load(wasm).await.map_err(|source| PastError::Load { digest, source })
        });
        component.await.cloned()
    }

    /// Lets components use these grants from now on.
    pub(crate) fn grant(&self, grants: Grants) {
        self.runtime.grant(grants);
    }

    /// Keeps the component that answers from the read model of a service, instead of the one before.
    pub(crate) fn pin_reader(&self, service: &ServiceName, component: Digest) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.insert(service.clone(), component);
    }

    /// Writes a component to disk, where it stays at least until the next call of
    /// [`Components::keep_releases`].
    pub(crate) fn keep(&self, wasm: &[u8]) -> io::Result<()> {
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.keep(wasm)?;
        releases.insert(Digest::of(wasm));
        Ok(())
    }

    /// Keeps the components that services may be rolled back to, instead of those before.
    pub(crate) fn keep_releases(&self, releases: HashSet<Digest>) {
        *self.releases.lock().unwrap_or_else(PoisonError::into_inner) = releases;
    }

    /// Returns the components that run, are earlier releases, or answer from a read model, and those that
    /// sagas need.
    pub(crate) fn needed(&self, by_sagas: HashSet<Digest>) -> HashSet<Digest> {
        self.needed_with(&self.releases.lock().unwrap_or_else(PoisonError::into_inner), by_sagas)
    }

    fn needed_with(&self, releases: &HashSet<Digest>, by_sagas: HashSet<Digest>) -> HashSet<Digest> {
        let running = self.current();
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let readers = readers.iter().filter(|(service, _)| running.service(service.as_str()).is_some());
        let others = releases.iter().chain(readers.map(|(_, reader)| reader)).copied();
        running.services().map(Component::digest).chain(others).chain(by_sagas).collect()
    }

    /// Collects the components on disk that are not [needed](Self::needed), and drops them from memory.
    pub(crate) fn collect(&self, by_sagas: HashSet<Digest>, collection: Collection) -> io::Result<Garbage> {
        // Held to the end, so that a component that is kept meanwhile is not removed.
        let releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = self.needed_with(&releases, by_sagas);
        if collection == Collection::Remove {
            let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
            past.retain(|digest, _| needed.contains(digest));
        }
        self.store.collect(&needed, collection)
    }

    /// Collects the components of the shared store that are not [needed](Self::needed). None: there is no
    /// shared store.
    pub(crate) async fn collect_shared(
        &self,
        by_sagas: HashSet<Digest>,
        collection: Collection,
    ) -> io::Result<Option<Garbage>> {
        let needed = self.needed(by_sagas);
        let garbage = self.store.collect_shared(&needed, collection).await?;
        // Another host may have deployed one of them meanwhile, and found it stored.
        for digest in self.needed(HashSet::new()).difference(&needed) {
            if let Some(wasm) = self.store.read(*digest)? {
                self.store.share(&wasm).await?;
            }
        }
        Ok(garbage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_kept_until_it_is_no_longer_needed() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        for wasm in [b"one", b"two"] {
            store.keep(wasm).unwrap();
            store.keep(wasm).unwrap();
        }
        let needed = HashSet::from([Digest::of(b"two")]);
        let garbage = Garbage { items: 1, bytes: 3 };
        assert_eq!(store.collect(&needed, Collection::Remove).unwrap(), garbage);
        assert_eq!(store.read(Digest::of(b"one")).unwrap(), None);
        assert_eq!(store.read(Digest::of(b"two")).unwrap(), Some(b"two".to_vec()));
    }

    #[test]
    fn a_damaged_component_is_not_used() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        store.keep(b"one").unwrap();
        fs::write(store.file(Digest::of(b"one")), b"eno").unwrap();
        assert_eq!(store.read(Digest::of(b"one")).unwrap(), None);
    }
}
