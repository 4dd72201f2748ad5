//! Components from a directory: every `*.wasm` in it.

use std::io;
use std::path::{Path, PathBuf};

use futures::future::join_all;

use super::Store;
use crate::runtime::{Component, HttpClient, LoadError, Runtime};

/// The largest component that is taken: one with an interpreter of another language in it has some ten megabytes.
pub(crate) const MAX_COMPONENT_BYTES: u64 = 128 << 20;

/// Why a directory's components cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("the directory of components {} cannot be read", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    #[error(
        "there is no component (*.wasm) in {}: `cargo xtask build` leaves the shop's in target/plugins",
        dir.display()
    )]
    Empty { dir: PathBuf },
    #[error("{} cannot be read", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{} has more than {MAX_COMPONENT_BYTES} bytes", file.display())]
    TooLarge { file: PathBuf },
    #[error("{} cannot be copied into the data directory", file.display())]
    Keep { file: PathBuf, source: io::Error },
    #[error("{} cannot be run", file.display())]
    Load { file: PathBuf, source: LoadError },
}

/// Loads all components of a directory, and keeps a copy of each in the store. One that cannot be run fails all: a host that
/// starts without one of its services would look well and not be.
pub async fn load(
    runtime: &Runtime,
    store: &Store,
    http: &HttpClient,
    dir: &Path,
) -> Result<Vec<Component>, DirectoryError> {
    let files = components(dir)?;
    if files.is_empty() {
        return Err(DirectoryError::Empty { dir: dir.to_owned() });
    }
    let loaded = join_all(files.into_iter().map(|file| async move {
        let wasm = read(&file)?;
        store.keep(&wasm).map_err(|source| DirectoryError::Keep { file: file.clone(), source })?;
        let component = runtime.load(wasm).await.and_then(|component| granted(component, http));
        component.map_err(|source| DirectoryError::Load { file, source })
    }));
    loaded.await.into_iter().collect()
}

/// Whether the operator grants what a component asks for. (One that is loaded for its open sagas needs no grant: sagas call
/// nobody.)
fn granted(component: Component, http: &HttpClient) -> Result<Component, LoadError> {
    let granted = http.check(&component.manifest().service, component.origins());
    granted.map_err(LoadError::NotGranted).map(|()| component)
}

fn components(dir: &Path) -> Result<Vec<PathBuf>, DirectoryError> {
    let unreadable = |source| DirectoryError::Directory { dir: dir.to_owned(), source };
    let entries = std::fs::read_dir(dir).map_err(unreadable)?;
    let files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut files = files.map_err(unreadable)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<u8>, DirectoryError> {
    let unreadable = |source| DirectoryError::Read { file: file.to_owned(), source };
    if std::fs::metadata(file).map_err(unreadable)?.len() > MAX_COMPONENT_BYTES {
        return Err(DirectoryError::TooLarge { file: file.to_owned() });
    }
    std::fs::read(file).map_err(unreadable)
}
