//! A log as a file.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write};
use std::path::Path;

use super::format::{Commit, Summary, Writer};
use crate::deployed::Store;
use crate::log::{LogFile, OpenError, ReadError};
use crate::model::{Position, Recorded};

/// Why a log cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the components in the data directory cannot be read")]
    Store(#[source] io::Error),
    #[error("the export cannot be written")]
    Write(#[source] io::Error),
}

/// Writes the log in a data directory, with the components that it may need, as it is now. A host may run on it. `progress` is
/// told how far it is, and where it ends.
pub fn export(
    data: &Path,
    out: impl Write,
    mut progress: impl FnMut(Position, Position),
) -> Result<Summary, ExportError> {
    let log = LogFile::open(data)?;
    let store = Store::open(data).map_err(ExportError::Store)?;
    // Both those from before and those from after the moment at which the log is taken: what it needs then is among them, even if
    // it is deleted at once, or was written just before.
    let mut components = store.files().map_err(ExportError::Store)?;
    let mut commits = Commits::of(log)?;
    components.extend(store.files().map_err(ExportError::Store)?);
    let mut writer = Writer::new(out, commits.head).map_err(ExportError::Write)?;
    for (digest, mut file) in components {
        let mut wasm = Vec::new();
        file.read_to_end(&mut wasm).map_err(ExportError::Store)?;
        writer.component(digest, &wasm).map_err(ExportError::Write)?;
    }
    while let Some(commit) = commits.next()? {
        let last = commit.last();
        writer.commit(commit).map_err(ExportError::Write)?;
        progress(last, commits.head);
    }
    writer.finish().map_err(ExportError::Write)
}

/// The commits of a log up to where it ended in the beginning, oldest first. What is in there never changes, so nobody need
/// be kept from adding to it.
pub(super) struct Commits {
    log: LogFile,
    pub(super) head: Position,
    /// What has been read last, and is not part of a commit yet.
    page: VecDeque<Recorded>,
    after: Position,
}

impl Commits {
    pub(super) fn of(log: LogFile) -> Result<Self, ReadError> {
        let head = log.head()?;
        Ok(Self { log, head, page: VecDeque::new(), after: Position::START })
    }

    pub(super) fn next(&mut self) -> Result<Option<Commit>, ReadError> {
        let Some(first) = self.event()? else { return Ok(None) };
        let mut commit = Commit::new(first);
        while self.peek()?.is_some_and(|next| next.index > 0) {
            self.event()?.into_iter().for_each(|next| commit.push(next));
        }
        Ok(Some(commit))
    }

    fn event(&mut self) -> Result<Option<Recorded>, ReadError> {
        self.peek()?;
        Ok(self.page.pop_front())
    }

    fn peek(&mut self) -> Result<Option<&Recorded>, ReadError> {
        if self.page.is_empty() && self.after < self.head {
            self.page = self.log.read_all(self.after)?.into();
            self.page.retain(|event| event.position <= self.head);
            self.after = self.page.back().map_or(self.head, |last| last.position);
        }
        Ok(self.page.front())
    }
}
