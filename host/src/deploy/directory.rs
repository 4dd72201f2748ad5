//! The components of a directory: every `*.wasm` in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The largest component that is taken: one with an interpreter of another language in it has some ten megabytes.
pub(crate) const MAX_COMPONENT_BYTES: u64 = 128 << 20;

/// Why a directory's components cannot be read.
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
}

/// The files with their bytes, in the order of their names. `required`: whether there must be any, because nothing runs yet.
pub(super) fn read(dir: &Path, required: bool) -> Result<Vec<(PathBuf, Vec<u8>)>, DirectoryError> {
    if !required && !dir.exists() {
        return Ok(Vec::new());
    }
    let unreadable = |source| DirectoryError::Directory { dir: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(unreadable)?;
    let files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut files = files.map_err(unreadable)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    if required && files.is_empty() {
        return Err(DirectoryError::Empty { dir: dir.to_owned() });
    }
    files.into_iter().map(|file| Ok((file.clone(), read_file(&file)?))).collect()
}

/// The signature beside a component, `order.wasm.sig`, if there is one.
pub(super) fn signature(file: &Path) -> Result<Option<Vec<u8>>, DirectoryError> {
    let file = file.with_extension("wasm.sig");
    match fs::read_to_string(&file) {
        // What is no signature is none of a trusted key.
        Ok(text) => Ok(Some(BASE64.decode(text.trim()).unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DirectoryError::Read { file, source }),
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, DirectoryError> {
    let unreadable = |source| DirectoryError::Read { file: file.to_owned(), source };
    if fs::metadata(file).map_err(unreadable)?.len() > MAX_COMPONENT_BYTES {
        return Err(DirectoryError::TooLarge { file: file.to_owned() });
    }
    fs::read(file).map_err(unreadable)
}
