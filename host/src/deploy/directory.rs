//! Reads the components of a directory: every `*.wasm` file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The largest component that is accepted. One with an interpreter of another language has some ten
/// megabytes.
pub(crate) const MAX_COMPONENT_BYTES: u64 = 128 << 20;

/// The reason why a directory's components cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory cannot be read.
    #[error("the directory of components {} cannot be read", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory has no components, and nothing is deployed yet.
    #[error(
        "there is no component (*.wasm) in {}: `cargo xtask build` leaves the shop's in target/plugins",
        dir.display()
    )]
    Empty {
        /// The directory.
        dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is too large.
    #[error("{} has more than {MAX_COMPONENT_BYTES} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
}

/// Reads the components of a directory, in the order of their names. Fails if `required` is true, because
/// nothing runs yet, and there are none.
pub fn read(dir: &Path, required: bool) -> Result<Vec<(PathBuf, Vec<u8>)>, DirectoryError> {
    if !required && !dir.exists() {
        return Ok(Vec::new());
    }
    let files = files(dir).map_err(|source| DirectoryError::Directory { dir: dir.to_owned(), source })?;
    if required && files.is_empty() {
        return Err(DirectoryError::Empty { dir: dir.to_owned() });
    }
    files.into_iter().map(|file| Ok((file.clone(), read_file(&file)?))).collect()
}

/// The properties of a file that change with its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// None on file systems without such a time.
    pub(super) changed: Option<SystemTime>,
    pub(super) bytes: u64,
}

/// Returns the files with their stamps, in the order of their names. A file that disappears meanwhile is left
/// out.
pub(super) fn stamps(dir: &Path) -> io::Result<Vec<(PathBuf, Stamp)>> {
    let stamp = |file: PathBuf| {
        let metadata = fs::metadata(&file).ok()?;
        Some((file, Stamp { changed: metadata.modified().ok(), bytes: metadata.len() }))
    };
    Ok(files(dir)?.into_iter().filter_map(stamp).collect())
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    Ok(files)
}

/// Reads the signature beside a component, `order.wasm.sig`, if there is one.
pub(super) fn signature(file: &Path) -> Result<Option<Vec<u8>>, DirectoryError> {
    let file = file.with_extension("wasm.sig");
    match fs::read(&file) {
        Ok(envelope) => Ok(Some(envelope)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DirectoryError::Read { file, source }),
    }
}

pub(super) fn read_file(file: &Path) -> Result<Vec<u8>, DirectoryError> {
    let unreadable = |source| DirectoryError::Read { file: file.to_owned(), source };
    if fs::metadata(file).map_err(unreadable)?.len() > MAX_COMPONENT_BYTES {
        return Err(DirectoryError::TooLarge { file: file.to_owned() });
    }
    fs::read(file).map_err(unreadable)
}
