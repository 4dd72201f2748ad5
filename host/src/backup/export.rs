//! Exports a log to a file.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write};
use std::path::Path;

use super::format::{Commit, Summary, Writer};
use crate::deployed::Store;
use crate::log::{LogFile, OpenError, ReadError};
use crate::model::{Position, Recorded};

/// The reason why a log cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The components cannot be read.
    #[error("the components in the data directory cannot be read")]
    Store(#[source] io::Error),
    /// The export cannot be written.
    #[error("the export cannot be written")]
    Write(#[source] io::Error),
}

/// Writes the log of a data directory as it is now, with the components that it may need. A host may run on
/// the log meanwhile. Calls `progress` with the position that is written and the last one.
pub fn export(
    data: &Path,
    out: impl Write,
    mut progress: impl FnMut(Position, Position),
) -> Result<Summary, ExportError> {
    let log = LogFile::open(data)?;
    let store = Store::open(data).map_err(ExportError::Store)?;
    // Opens the files before and after the end of the log is read. So all components that the log needs are
    // among them, even if one is deleted or written at that moment.
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

/// The commits of a log up to its end at the start of the export, oldest first. They never change, so a host
/// may append meanwhile.
pub(super) struct Commits {
    log: LogFile,
    pub(super) head: Position,
    /// The events of the last page that are not part of a commit yet.
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
