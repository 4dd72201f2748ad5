//! Garbage: files and rows that nothing needs any more.

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::AddAssign;
use std::path::Path;

/// The treatment of garbage that is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collection {
    /// It is only counted.
    DryRun,
    /// It is removed.
    Remove,
}

/// The number and the size of files or rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Garbage {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl AddAssign for Garbage {
    fn add_assign(&mut self, Self { items, bytes }: Self) {
        self.items += items;
        self.bytes += bytes;
    }
}

/// Collects the files of a directory that are not needed. A file that another thread removes meanwhile does
/// not count.
pub(crate) fn collect_files(
    dir: &Path,
    collection: Collection,
    is_needed: impl Fn(&str) -> bool,
) -> io::Result<Garbage> {
    let mut garbage = Garbage::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| is_needed(name) || is_partial_of_this_process(name))
        {
            continue;
        }
        let removed = entry.metadata().and_then(|file| {
            if collection == Collection::Remove {
                fs::remove_file(entry.path())?;
            }
            Ok(file.len())
        });
        match removed {
            Ok(bytes) => garbage += Garbage { items: 1, bytes },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(garbage)
}

/// Returns the extension of a file that is being written and gets its name when it is complete.
pub(crate) fn partial_extension() -> String {
    format!("{}.partial", std::process::id())
}

/// Returns whether this process may be writing the file. Those of other processes are left over: only one
/// uses a data directory at a time.
fn is_partial_of_this_process(name: &str) -> bool {
    name.strip_suffix(&partial_extension()).is_some_and(|stem| stem.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_needed_files_and_those_being_written_stay() {
        let dir = tempfile::tempdir().unwrap();
        let written = format!("d.{}", partial_extension());
        for name in ["a.wasm", "b.wasm", "c.1.partial", &written] {
            fs::write(dir.path().join(name), "12").unwrap();
        }
        let collect = |collection| collect_files(dir.path(), collection, |name| name == "a.wasm").unwrap();
        let found = Garbage { items: 2, bytes: 4 };
        assert_eq!([collect(Collection::DryRun), collect(Collection::DryRun)], [found, found]);
        assert_eq!([collect(Collection::Remove), collect(Collection::Remove)], [found, Garbage::default()]);
        assert!(dir.path().join("a.wasm").exists() && dir.path().join(written).exists());
    }
}
