//! The files of the read databases: `read/<service>-v<version>.db`. The name of a recreated one also has its
//! generation: `read/<service>-v<version>-<generation>.db`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ProjectionsError;

/// The identity of a database among those of its service. A newer database has a higher name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// The version of the read model.
    pub(super) version: u32,
    /// The number of databases of this version before it.
    pub(super) generation: u32,
}

impl Name {
    /// The generation of a service's first database of a version, and the lowest that there is.
    pub(super) const FIRST_GENERATION: u32 = 0;

    /// Returns the path of the file: `report-v1.db`, and in a later generation `report-v1-2.db`.
    pub(super) fn path(self, dir: &Path, service: &str) -> PathBuf {
        let Self { version, generation } = self;
        dir.join(match generation {
            Self::FIRST_GENERATION => format!("{service}-v{version}.db"),
            _ => format!("{service}-v{version}-{generation}.db"),
        })
    }

    fn parse(file: &str, service: &str) -> Option<Self> {
        let rest = file.strip_prefix(service)?.strip_prefix("-v")?.strip_suffix(".db")?;
        let (version, generation) = rest.split_once('-').unwrap_or((rest, "0"));
        Some(Self { version: version.parse().ok()?, generation: generation.parse().ok()? })
    }
}

/// Makes the directory of the read databases in a data directory.
pub(super) fn directory(data: &Path) -> Result<PathBuf, ProjectionsError> {
    let dir = data.join("read");
    match fs::create_dir_all(&dir) {
        Ok(()) => Ok(dir),
        Err(source) => Err(ProjectionsError::Directory { dir, source }),
    }
}

/// Lists the databases of a service, newest first.
pub(super) fn names(dir: &Path, service: &str) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().to_str().and_then(|file| Name::parse(file, service)));
    }
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}

/// Returns whether a file is a database of a service, or one that SQLite keeps beside it.
pub(super) fn is_of(file: &str, service: &str) -> bool {
    let beside = ["-wal", "-shm"].iter().find_map(|suffix| file.strip_suffix(suffix));
    Name::parse(beside.unwrap_or(file), service).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_again_from_its_file() {
        for (version, generation) in [(1, 0), (12, 0), (1, 3)] {
            let name = Name { version, generation };
            let path = name.path(Path::new("read"), "report");
            assert_eq!(Name::parse(path.file_name().unwrap().to_str().unwrap(), "report"), Some(name));
        }
        for other in ["report-v1.db-wal", "reports-v1.db", "report-v2-v1.db", "report-v1-2-3.db", "report.db"]
        {
            assert_eq!(Name::parse(other, "report"), None, "{other}");
        }
    }
}
