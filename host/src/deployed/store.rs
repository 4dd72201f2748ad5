//! The components that may still be needed, by digest: whatever runs, and whatever a saga has started on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::bucket::Bucket;
use super::registry::{Deployed, Registry};
use crate::model::{Digest, ServiceName};
use crate::runtime::{Component, LoadError, Runtime};

/// Component files by digest: `components/<digest>.wasm`.
#[derive(Clone)]
pub struct Store {
    dir: PathBuf,
    /// Where other hosts have theirs, if the log is shared.
    bucket: Option<Bucket>,
}

impl Store {
    pub fn open(data: &Path) -> io::Result<Self> {
        let dir = data.join("components");
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, bucket: None })
    }

    /// With where other hosts have theirs, if the log is shared.
    pub fn shared(self, bucket: Option<Bucket>) -> Self {
        Self { bucket, ..self }
    }

    /// Writes a component unless it is there. It is on disk when this returns.
    pub fn keep(&self, wasm: &[u8]) -> io::Result<()> {
        let file = self.file(Digest::of(wasm));
        if file.exists() {
            return Ok(());
        }
        let partial = file.with_extension(format!("{}.partial", std::process::id()));
        let mut written = File::create(&partial)?;
        written.write_all(wasm)?;
        written.sync_all()?;
        fs::rename(partial, file)?;
        File::open(&self.dir)?.sync_all()
    }

    /// The bytes of a component; none if it is not there or damaged.
    pub(crate) fn read(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.file(digest)) {
            Ok(wasm) => Ok(Some(wasm).filter(|wasm| Digest::of(wasm) == digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same, fetched from where other hosts have theirs if need be.
    pub(crate) async fn fetch(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        if let Some(wasm) = self.read(digest)? {
            return Ok(Some(wasm));
        }
        let Some(bucket) = &self.bucket else { return Ok(None) };
        let wasm = bucket.get(digest).await?;
        wasm.iter().try_for_each(|wasm| self.keep(wasm))?;
        Ok(wasm)
    }

    /// Keeps a component here, and where other hosts look for it.
    pub(crate) async fn keep_for_all(&self, wasm: &[u8]) -> io::Result<()> {
        self.keep(wasm)?;
        self.share(wasm).await
    }

    /// Puts a component where other hosts look for it.
    pub(crate) async fn share(&self, wasm: &[u8]) -> io::Result<()> {
        match &self.bucket {
            Some(bucket) => bucket.put(wasm).await,
            None => Ok(()),
        }
    }

    /// The files of all components, opened: one that is deleted from now on can be read still.
    pub fn files(&self) -> io::Result<BTreeMap<Digest, File>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            // Anything else is on its way to become a component.
            let digest = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".wasm")?.parse().ok());
            let Some(digest) = digest else { continue };
            match File::open(path) {
                Ok(file) => drop(files.insert(digest, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    /// Deletes all components but these.
    pub fn retain(&self, needed: &HashSet<Digest>) -> io::Result<()> {
        let names: HashSet<PathBuf> = needed.iter().map(|digest| self.file(*digest)).collect();
        for entry in fs::read_dir(&self.dir)? {
            let file = entry?.path();
            if !names.contains(&file) {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }

    fn file(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{digest}.wasm"))
    }
}

/// Why a component of the past cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    #[error("the component {} is not kept any more", .0.short())]
    Gone(Digest),
    #[error("the component {} cannot be read: {source}", digest.short())]
    Read { digest: Digest, source: io::Error },
    #[error("the component {} cannot be run: {source}", digest.short())]
    Load { digest: Digest, source: LoadError },
}

/// The components that run, and those of the past that sagas still need.
pub struct Components {
    registry: Arc<Registry>,
    runtime: Runtime,
    store: Store,
    /// Each is loaded once, by the first who needs it.
    past: Mutex<HashMap<Digest, Arc<OnceCell<Component>>>>,
    /// The component that answers from the read model of a service.
    readers: Mutex<HashMap<ServiceName, Digest>>,
    /// What may be rolled back to.
    releases: Mutex<HashSet<Digest>>,
}

impl Components {
    pub fn new(registry: Arc<Registry>, runtime: Runtime, store: Store) -> Self {
        Self {
            registry,
            runtime,
            store,
            past: Mutex::default(),
            readers: Mutex::default(),
            releases: Mutex::default(),
        }
    }

    pub fn current(&self) -> Arc<Deployed> {
        self.registry.current()
    }

    /// The component with this digest, whether it is deployed or was.
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
            let wasm = self.store.fetch(digest).await;
            let wasm = wasm.map_err(|source| PastError::Read { digest, source })?;
            let wasm = wasm.ok_or(PastError::Gone(digest))?;
            self.runtime.load(wasm).await.map_err(|source| PastError::Load { digest, source })
        });
        component.await.cloned()
    }

    /// Keeps the component that answers from the read model of a service, in the place of the one before.
    pub(crate) fn pin_reader(&self, service: &ServiceName, component: Digest) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.insert(service.clone(), component);
    }

    /// Puts a component on disk, where it stays at least until [`Components::keep_releases`] is told others.
    pub(crate) fn keep(&self, wasm: &[u8]) -> io::Result<()> {
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.keep(wasm)?;
        releases.insert(Digest::of(wasm));
        Ok(())
    }

    /// Keeps the components that services may be rolled back to, in the place of those that were told before.
    pub(crate) fn keep_releases(&self, releases: HashSet<Digest>) {
        *self.releases.lock().unwrap_or_else(PoisonError::into_inner) = releases;
    }

    /// Lets go of all components that do not run and are no earlier release, that answer from no read model, and that no
    /// saga needs.
    pub fn retain(&self, mut needed: HashSet<Digest>) -> io::Result<()> {
        needed.extend(self.readers.lock().unwrap_or_else(PoisonError::into_inner).values());
        // Held to the end: what is kept meanwhile is not deleted.
        let releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        needed.extend(releases.iter());
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.retain(|digest, _| needed.contains(digest));
        drop(past);
        let running = self.current();
        let needed = running.services().map(Component::digest).chain(needed).collect();
        self.store.retain(&needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_kept_until_nobody_needs_it() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        for wasm in [b"one", b"two"] {
            store.keep(wasm).unwrap();
            store.keep(wasm).unwrap();
        }
        store.retain(&HashSet::from([Digest::of(b"two")])).unwrap();
        assert_eq!(store.read(Digest::of(b"one")).unwrap(), None);
        assert_eq!(store.read(Digest::of(b"two")).unwrap(), Some(b"two".to_vec()));
    }

    #[test]
    fn a_damaged_component_is_not_taken() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        store.keep(b"one").unwrap();
        fs::write(store.file(Digest::of(b"one")), b"eno").unwrap();
        assert_eq!(store.read(Digest::of(b"one")).unwrap(), None);
    }
}
