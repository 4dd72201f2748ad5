//! Imports a file into a log.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::path::Path;

use super::export::Commits;
use super::format::{Commit, FormatError, Item, Reader, Summary};
use crate::deployed::Store;
use crate::log::{AppendError, Appended, Appending, EventLog, LogFile, OpenError, ReadError};
use crate::model::{AppendChain, CommitHash, Position};

/// The most appends in progress: half of what a log of one process commits at once. They are of one chain, so
/// they keep their order on every log.
const MAX_PENDING: usize = 512;

/// The reason why a log cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The export cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log has other events.
    #[error(
        "the log has events already, and from position {from} on others than the export: import into an \
         empty one, in another data directory or, with log = \"jetstream\", under another name in \
         jetstream.stream"
    )]
    NotEmpty {
        /// The first position that differs.
        from: Position,
    },
    /// The components cannot be stored.
    #[error("the components cannot be stored")]
    Store(#[source] io::Error),
    /// The events cannot be appended.
    #[error(
        "the events from position {from} on cannot be written; once they can, import again: the import \
         continues there"
    )]
    Append {
        /// The first position.
        from: Position,
        /// The cause.
        source: AppendError,
    },
    /// The log cannot be marked as one that is being imported, or as complete.
    #[error("the log cannot be marked as incomplete while it is imported; once it can, import again")]
    Mark(#[source] AppendError),
    /// Something else appends to the log.
    #[error(
        "the event at position {wanted} was written at {got}: another process writes to this log; stop all \
         hosts, and import into an empty one"
    )]
    Elsewhere {
        /// The position in the export.
        wanted: Position,
        /// The position in the log.
        got: Position,
    },
    /// The log cannot be read afterwards.
    #[error("the imported events cannot be read again")]
    ReadBack(#[from] ReadError),
    /// The log differs from the export.
    #[error("the imported events differ from those of the export: do not use this log")]
    NotTheSame,
}

/// The destination of an import.
pub struct Destination<'a> {
    /// The log.
    pub log: &'a dyn EventLog,
    /// The store of the components.
    pub store: &'a Store,
    /// The data directory of both.
    pub data: &'a Path,
}

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The numbers of the export.
    pub summary: Summary,
    /// The number of events that the log had already, from an interrupted import.
    pub there_before: u64,
}

/// Reads an export to its end. Fails if it is not whole.
pub fn check(input: impl BufRead) -> Result<Summary, FormatError> {
    let mut export = Reader::new(input)?;
    while export.next()?.is_some() {}
    Ok(export.summary().clone())
}

/// Writes an export into a log that is empty or has the beginning of the export. Every event keeps its
/// position. At the end, everything is read again and compared. Until then the log has a mark, with which no
/// host serves it. Calls `progress` with the position that is written and the last one.
pub async fn import(
    to: Destination<'_>,
    input: impl BufRead,
    mut progress: impl FnMut(Position, Position),
) -> Result<Imported, ImportError> {
    let mut export = Reader::new(input)?;
    let end = export.last_position();
    let mut there = commits(to.data)?;
    let there_before = there.head;
    if there_before > end {
        return Err(ImportError::NotEmpty { from: end.next() });
    }
    let (mut appends, mut marked) = (Appends::to(to.log), false);
    let read = async {
        while let Some(item) = export.next()? {
            let commit = match item {
                Item::Component(wasm) => {
                    to.store.keep_for_all(&wasm).await.map_err(ImportError::Store)?;
                    continue;
                }
                Item::Commit(commit) => commit,
            };
            let last = commit.last();
            match there.next()? {
                Some(known) if known == commit => {}
                Some(known) => return Err(ImportError::NotEmpty { from: known.position }),
                None => {
                    // Only now: a log that has other events is not touched.
                    if !marked {
                        to.log.mark_importing(true).await.map_err(ImportError::Mark)?;
                        marked = true;
                    }
                    appends.push(commit).await?;
                }
            }
            progress(last, end);
        }
        Ok::<_, ImportError>(())
    };
    let read = read.await;
    // The commits before an error are written, so that another import goes on behind it.
    let written = appends.finish().await;
    read.and(written)?;
    compare(to.data, export.chain())?;
    to.log.mark_importing(false).await.map_err(ImportError::Mark)?;
    Ok(Imported { summary: export.summary().clone(), there_before: there_before.get() })
}

/// Returns the commits in the log.
fn commits(data: &Path) -> Result<Commits, ImportError> {
    Ok(Commits::of(LogFile::open(data)?)?)
}

/// Checks that the log has the commits up to the one with this hash, and no others.
fn compare(data: &Path, imported: CommitHash) -> Result<(), ImportError> {
    let (mut commits, mut hash) = (commits(data)?, CommitHash::GENESIS);
    while let Some(commit) = commits.next()? {
        hash = commit.hash_on(hash);
        if commit.hash != Some(hash) {
            return Err(ImportError::NotTheSame);
        }
    }
    if hash == imported { Ok(()) } else { Err(ImportError::NotTheSame) }
}

/// Appends commits in their order in the export.
struct Appends<'a> {
    log: &'a dyn EventLog,
    chain: AppendChain,
    /// The appends in progress, each with its first and its last position in the export.
    pending: VecDeque<(Position, Position, Appending)>,
}

impl<'a> Appends<'a> {
    fn to(log: &'a dyn EventLog) -> Self {
        Self { log, chain: AppendChain::new(), pending: VecDeque::new() }
    }

    async fn push(&mut self, commit: Commit) -> Result<(), ImportError> {
        if self.pending.len() == MAX_PENDING {
            self.complete_oldest().await?;
        }
        let (first, last) = (commit.position, commit.last());
        let appending = self.log.append_in(self.chain, vec![commit.into_append()]);
        self.pending.push_back((first, last, appending));
        Ok(())
    }

    async fn finish(mut self) -> Result<(), ImportError> {
        while !self.pending.is_empty() {
            self.complete_oldest().await?;
        }
        Ok(())
    }

    /// Waits for the oldest append, and checks its position.
    async fn complete_oldest(&mut self) -> Result<(), ImportError> {
        let Some((from, wanted, appending)) = self.pending.pop_front() else { return Ok(()) };
        let Appended { position: got } =
            appending.await.map_err(|source| ImportError::Append { from, source })?;
        if got == wanted { Ok(()) } else { Err(ImportError::Elsewhere { wanted, got }) }
    }
}
