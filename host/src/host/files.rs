//! The files of a host are for its user alone: the log has the whole business in it, and compiled components
//! are code that the host runs.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::umask;

use crate::error::Chain;

/// The mode of the data directory.
const DIRECTORY: u32 = 0o700;
/// The bits of a mode that are for others than the owner.
const OTHERS: u32 = 0o077;

/// Makes all files that this process creates from now on readable and writable for its user alone: modes 0600
/// and 0700.
pub fn keep_files_private() {
    umask(Mode::from_raw_mode(OTHERS));
}

/// Closes the data directory to others, if it exists. One that belongs to another user stays as it is, and is
/// reported.
pub(super) fn close_to_others(data: &Path) {
    match closed(data) {
        Ok(None) => {}
        Ok(Some(mode)) => tracing::warn!(
            mode = format!("{mode:o}"),
            "the data directory {} was open to other users; it is closed to them now",
            data.display()
        ),
        Err(error) => tracing::warn!(
            error = %Chain(&error),
            "failed to close the data directory {} to other users; they may read the log",
            data.display()
        ),
    }
}

/// Returns the mode that the directory had, if it was open to others.
fn closed(data: &Path) -> io::Result<Option<u32>> {
    let mode = match fs::metadata(data) {
        Ok(found) => found.permissions().mode() & 0o777,
        // It is about to be created.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    fs::set_permissions(data, Permissions::from_mode(DIRECTORY))?;
    Ok(Some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_data_directory_is_closed_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(closed(folder.path()).unwrap(), Some(0o755));
        assert_eq!(closed(folder.path()).unwrap(), None);
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, DIRECTORY);
        assert_eq!(closed(&folder.path().join("missing")).unwrap(), None);
    }
}
