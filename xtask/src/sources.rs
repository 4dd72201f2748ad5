//! The files of the repository as the checks read them, and what the checks find.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;

/// A text file of the repository.
pub(crate) struct Source {
    /// Relative to the root of the repository, with `/` between its parts.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// The last part of the path after its dot, or nothing.
    pub(crate) fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|extension| extension.to_str()).unwrap_or_default()
    }
}

/// A breach of a rule, and the way to end it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// From 1 on.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Lists the paths that git knows or would add, so that a new file is checked before its first commit.
pub(crate) fn paths(root: &Path) -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = list.output().map_err(|error| format!("git does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let listed = String::from_utf8(output.stdout)?;
    let mut paths: Vec<String> =
        listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    // A file that was removed or moved is listed until the change is staged.
    paths.retain(|path| root.join(path).is_file());
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Reads the files whose paths are `wanted`.
pub(crate) fn read(root: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths(root)?.into_iter().filter(|path| wanted(path)) {
        let text = fs::read_to_string(root.join(&path)).map_err(|error| format!("{path}: {error}"))?;
        sources.push(Source { path, text });
    }
    Ok(sources)
}

/// Prints the findings; fails if there are any.
pub(crate) fn conclude(check: &str, findings: &[Finding]) -> Result<()> {
    for finding in findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => Err(format!("{check}: 1 finding").into()),
        count => Err(format!("{check}: {count} findings").into()),
    }
}

/// The number of the line that the byte at `offset` stands in.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
}
