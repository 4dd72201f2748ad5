//! Checks a log or an export: positions and versions without gaps, the hash chain, and that everything can be
//! read.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;

use serde::Serialize;

use super::format::{Commit, FormatError, Item, Reader};
use crate::log::{CommitHasher, LogFile, OpenError, ReadError};
use crate::model::{CommitHash, Position, Recorded, StreamId, Version};

/// The numbers of a log without damage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The number of streams.
    pub streams: u64,
    /// The number of commands.
    pub commands: u64,
    /// The number of events.
    pub events: u64,
    /// The hash of the last commit, which names the whole log.
    pub hash: CommitHash,
}

/// The reasons why a log or an export is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The export is damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The first damage.
    #[error("the log is damaged at position {position}: {damage}")]
    Damaged {
        /// The position.
        position: Position,
        /// The damage, as a part of a sentence.
        damage: Damage,
    },
}

/// The damages that are found between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The event at the position is not there.
    #[error("the event is missing")]
    Missing,
    /// The event has not the next version of its stream.
    #[error("its stream continues with version {found} after version {before}")]
    Version {
        /// The version before.
        before: Version,
        /// The version of the event.
        found: Version,
    },
    /// The event does not belong to the command of the event before, as its index says.
    #[error("it does not continue the command of the event before")]
    Command,
    /// The hash does not fit.
    #[error("the hash of its command's events does not follow from the commit before and their content")]
    Hash,
}

/// Checks the log of a data directory, or the copy of a shared log, as it is now. A host may run on the log
/// meanwhile. Calls `progress` with the position that is checked and the last one.
pub fn verify_log(
    data: &Path,
    mut progress: impl FnMut(Position, Position),
) -> Result<Verified, VerifyError> {
    let log = LogFile::open(data)?;
    let (head, mut check) = (log.head()?, Check::default());
    while check.position() < head {
        let page = log.read_all(check.position())?;
        if page.is_empty() {
            let position = check.position().next();
            return Err(VerifyError::Damaged { position, damage: Damage::Missing });
        }
        for event in page.into_iter().take_while(|event| event.position <= head) {
            check.event(event)?;
        }
        progress(check.position(), head);
    }
    check.finish()
}

/// Checks an export.
pub fn verify_export(
    input: impl BufRead,
    mut progress: impl FnMut(Position, Position),
) -> Result<Verified, VerifyError> {
    let mut export = Reader::new(input)?;
    let (end, mut versions) = (export.last_position(), Versions::default());
    while let Some(item) = export.next()? {
        if let Item::Commit(commit) = item {
            let Commit { position, stream, version, events, .. } = &commit;
            versions.advance(*position, stream, *version, version.after(events.len()).before(1))?;
            progress(commit.last(), end);
        }
    }
    let summary = export.summary();
    let streams = versions.0.len() as u64;
    Ok(Verified { streams, commands: summary.commands, events: summary.events, hash: export.chain() })
}

/// The version of each stream: some hundred bytes for a stream.
#[derive(Default)]
struct Versions(HashMap<StreamId, Version>);

impl Versions {
    /// Moves a stream to the version `last`. Fails if `first` is not its next version.
    fn advance(
        &mut self,
        position: Position,
        stream: &StreamId,
        first: Version,
        last: Version,
    ) -> Result<(), VerifyError> {
        let before = self.0.insert(stream.clone(), last).unwrap_or_default();
        match first == before.next() {
            true => Ok(()),
            false => {
                let damage = Damage::Version { before, found: first };
                Err(VerifyError::Damaged { position, damage })
            }
        }
    }
}

/// The check of a log, event by event.
#[derive(Default)]
struct Check {
    versions: Versions,
    commands: u64,
    /// The hash of the commit before the current one.
    previous: CommitHash,
    /// The last event, and the hash of its commit so far.
    current: Option<(Recorded, CommitHasher)>,
}

impl Check {
    /// Returns the position of the last event.
    fn position(&self) -> Position {
        self.current.as_ref().map_or(Position::START, |(event, _)| event.position)
    }

    fn event(&mut self, event: Recorded) -> Result<(), VerifyError> {
        let wanted = self.position().next();
        let damaged = |position, damage| Err(VerifyError::Damaged { position, damage });
        if event.position != wanted {
            return damaged(wanted, Damage::Missing);
        }
        self.versions.advance(wanted, &event.stream, event.version, event.version)?;
        if event.index == 0 {
            self.finish_commit()?;
            self.commands += 1;
            let Recorded { position, stream, version, meta, .. } = &event;
            let mut hasher = CommitHasher::begin(self.previous, *position, stream, *version, meta);
            hasher.event(event.name.as_str(), event.payload.as_str());
            self.current = Some((event, hasher));
            return Ok(());
        }
        match &mut self.current {
            Some((last, hasher)) if last.index + 1 == event.index && last.stream == event.stream => {
                hasher.event(event.name.as_str(), event.payload.as_str());
                *last = event;
                Ok(())
            }
            _ => damaged(wanted, Damage::Command),
        }
    }

    /// Compares the hash of the current commit.
    fn finish_commit(&mut self) -> Result<(), VerifyError> {
        let Some((last, hasher)) = self.current.take() else { return Ok(()) };
        if hasher.finish() != last.hash {
            let position = last.position.before(last.index as usize);
            return Err(VerifyError::Damaged { position, damage: Damage::Hash });
        }
        self.previous = last.hash;
        Ok(())
    }

    fn finish(mut self) -> Result<Verified, VerifyError> {
        let events = self.position().get();
        self.finish_commit()?;
        let streams = self.versions.0.len() as u64;
        Ok(Verified { streams, commands: self.commands, events, hash: self.previous })
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::error::Chain;
    use crate::log::{Append, EmbeddedLog, EventLog as _};
    use crate::model::{CommandId, Json, LogMark, Meta, NewEvent};

    async fn log(dir: &Path) -> LogMark {
        let log = EmbeddedLog::open(dir).unwrap();
        for (stream, expected) in [("a", 0), ("b", 0), ("a", 2), ("b", 2)] {
            let meta = Meta { command_id: CommandId::from(format!("{stream}{expected}")), ..Meta::default() };
            let event = NewEvent { name: "done".into(), payload: Json::empty_object() };
            let stream = StreamId::new("thing", stream).unwrap();
            let append = Append {
                events: vec![event.clone(), event],
                meta: meta.into(),
                ..Append::nothing(stream, Version::new(expected))
            };
            log.append(vec![append]).await.unwrap();
        }
        log.read_all(Position::new(7), 1).await.unwrap()[0].mark()
    }

    #[tokio::test]
    async fn a_log_without_damage_is_verified() {
        let dir = tempfile::tempdir().unwrap();
        let mark = log(dir.path()).await;
        let verified = verify_log(dir.path(), |_, _| ()).unwrap();
        assert_eq!((verified.streams, verified.commands, verified.events), (2, 4, 8));
        assert_eq!((Position::new(verified.events), verified.hash), (mark.position, mark.hash));
        let empty = tempfile::tempdir().unwrap();
        drop(EmbeddedLog::open(empty.path()).unwrap());
        assert_eq!(verify_log(empty.path(), |_, _| ()).unwrap(), Verified::default());
    }

    #[tokio::test]
    async fn the_first_damage_is_named_with_its_position() {
        let hash = "the hash of its command's events does not follow";
        let table = [
            ("UPDATE events SET payload = '{\"a\": 1}' WHERE position = 4", 3, hash),
            ("UPDATE events SET payload = '{' WHERE position = 4", 4, "is damaged"),
            ("UPDATE events SET name = 'undone' WHERE position = 8", 7, hash),
            ("UPDATE events SET meta = replace(meta, '\"t\":0', '\"t\":1') WHERE position = 5", 5, hash),
            (
                "UPDATE events SET hash = (SELECT hash FROM events WHERE position = 1) WHERE position = 3",
                3,
                hash,
            ),
            ("DELETE FROM events WHERE position = 6", 6, "the event is missing"),
            ("DELETE FROM events WHERE position IN (5, 6)", 5, "the event is missing"),
            (
                "UPDATE events SET version = version + 6 WHERE position > 6",
                7,
                "with version 9 after version 2",
            ),
            ("UPDATE streams SET name = 'thing/c' WHERE name = 'thing/b'", 3, hash),
            ("UPDATE events SET command_index = 3 WHERE position = 6", 6, "it does not continue the command"),
        ];
        for (damage, position, expected) in table {
            let dir = tempfile::tempdir().unwrap();
            log(dir.path()).await;
            let database = Connection::open(dir.path().join("events.db")).unwrap();
            database.execute_batch(&format!("PRAGMA ignore_check_constraints = on; {damage}")).unwrap();
            let error = verify_log(dir.path(), |_, _| ()).expect_err(damage);
            let text = Chain(&error).to_string();
            assert!(
                text.contains(&format!("position {position}")) && text.contains(expected),
                "{damage}: {text}"
            );
        }
    }
}
