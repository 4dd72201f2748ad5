//! A file as a log.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::export::Commits;
use super::format::{Commit, FormatError, Item, Reader, Summary};
use crate::deployed::Store;
use crate::log::{AppendChain, AppendError, Appended, Appending, EventLog, LogFile, OpenError, ReadError};
use crate::model::Position;

/// Appends under way in a log that nobody else can write to: half of what it commits at once. In a shared one it is one at a
/// time, or the order of the events would be another.
const MAX_UNDER_WAY: usize = 512;

/// Why a log cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "the log has events already, and from position {from} on others than the export: import into an empty one, in another \
         data directory or, with log = \"jetstream\", under another name in jetstream.stream"
    )]
    NotEmpty { from: Position },
    #[error("the components cannot be put where the hosts look for them")]
    Store(#[source] io::Error),
    #[error(
        "the events from position {from} on cannot be written; when they can, import again: it goes on there"
    )]
    Append { from: Position, source: AppendError },
    #[error(
        "the event at position {wanted} was written at {got}: somebody else writes to this log; stop all hosts, and import into \
         an empty one"
    )]
    Elsewhere { wanted: Position, got: Position },
    #[error("what was written cannot be read again")]
    ReadBack(#[from] ReadError),
    #[error("what was written is not what the export has: do not use this log")]
    NotTheSame,
}

/// The log that an import writes, and what belongs to it.
pub struct Destination<'a> {
    pub log: &'a dyn EventLog,
    pub store: &'a Store,
    /// The data directory of both.
    pub data: &'a Path,
}

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    pub summary: Summary,
    /// Events that were there already, from an import that was broken off.
    pub there_before: u64,
}

/// Reads an export to its end, for whether it is whole.
pub fn check(input: impl BufRead) -> Result<Summary, FormatError> {
    let mut export = Reader::new(input)?;
    while export.next()?.is_some() {}
    Ok(export.summary().clone())
}

/// Writes an export into a log, which is empty, or has the beginning of the export. Every event gets the
/// position that it had. In the end everything is read again and compared. `progress` is told how far it is, and where it ends.
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
    let mut appends = Appends::to(to.log);
    let mut hash = Sha256::new();
    while let Some(item) = export.next()? {
        let commit = match item {
            Item::Component(wasm) => {
                to.store.keep_for_all(&wasm).await.map_err(ImportError::Store)?;
                continue;
            }
            Item::Commit(commit) => commit,
        };
        commit.hash_into(&mut hash);
        let last = commit.last();
        match there.next()? {
            Some(known) if known == commit => {}
            Some(known) => return Err(ImportError::NotEmpty { from: known.position }),
            None => appends.push(commit).await?,
        }
        progress(last, end);
    }
    appends.finish().await?;
    compare(to.data, hash)?;
    Ok(Imported { summary: export.summary().clone(), there_before: there_before.get() })
}

/// What is in the log.
fn commits(data: &Path) -> Result<Commits, ImportError> {
    Ok(Commits::of(LogFile::open(data)?)?)
}

/// Whether the log has the commits with this hash, and no others.
fn compare(data: &Path, imported: Sha256) -> Result<(), ImportError> {
    let (mut commits, mut hash) = (commits(data)?, Sha256::new());
    while let Some(commit) = commits.next()? {
        commit.hash_into(&mut hash);
    }
    if hash.finalize() == imported.finalize() { Ok(()) } else { Err(ImportError::NotTheSame) }
}

/// Appends in the order of the log that they come from.
struct Appends<'a> {
    log: &'a dyn EventLog,
    chain: AppendChain,
    most: usize,
    /// With the first and the last position that each is to have.
    under_way: VecDeque<(Position, Position, Appending)>,
}

impl<'a> Appends<'a> {
    fn to(log: &'a dyn EventLog) -> Self {
        let most = if log.is_shared() { 1 } else { MAX_UNDER_WAY };
        Self { log, chain: AppendChain::new(), most, under_way: VecDeque::new() }
    }

    async fn push(&mut self, commit: Commit) -> Result<(), ImportError> {
        if self.under_way.len() == self.most {
            self.settle().await?;
        }
        let (first, last) = (commit.position, commit.last());
        let appending = self.log.append_in(self.chain, vec![commit.into_append()]);
        self.under_way.push_back((first, last, appending));
        Ok(())
    }

    async fn finish(mut self) -> Result<(), ImportError> {
        while !self.under_way.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for the oldest.
    async fn settle(&mut self) -> Result<(), ImportError> {
        let Some((from, wanted, appending)) = self.under_way.pop_front() else { return Ok(()) };
        let Appended { position: got } =
            appending.await.map_err(|source| ImportError::Append { from, source })?;
        if got == wanted { Ok(()) } else { Err(ImportError::Elsewhere { wanted, got }) }
    }
}
