//! The upgrade of a log that an older version of Kontor has written.

use std::error::Error;
use std::time::Duration;

use rusqlite::{Connection, Row};

use super::meta;
use super::schema::LAYOUT;
use crate::clock::Stopwatch;
use crate::log::CommitHasher;
use crate::model::{CommandId, CommitHash, Position, StreamId};

/// The number of events that are read before their hashes are written.
const PAGE: usize = 1_000;
/// The time between two lines of progress in the host's own log.
const PROGRESS: Duration = Duration::from_secs(5);

const NEXT_EVENTS: &str = "
    SELECT events.position, streams.name, events.version, events.command_index, events.name,
        events.payload, events.command_id, events.meta
    FROM events CROSS JOIN streams ON streams.id = events.stream
    WHERE events.position > ?1 ORDER BY events.position LIMIT ?2";

const SET_HASH: &str = "UPDATE events SET hash = ?2 WHERE position = ?1";

/// The reasons why a log cannot be upgraded.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The database cannot be read or written.
    #[error("the database refused")]
    Database(#[from] rusqlite::Error),
    /// An event cannot be read.
    #[error("the event at position {position} is damaged")]
    Damaged {
        /// The position of the event.
        position: Position,
        /// The damage.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Adds the hashes of all commits to a log of layout 1, in one transaction.
pub(super) fn add_hashes(connection: &Connection) -> Result<(), UpgradeError> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch("ALTER TABLE events ADD COLUMN hash BLOB")?;
    let head = super::last_position(&transaction)?;
    tracing::info!(events = head.get(), "upgrading the event log: adding the hash of each command's events");
    let (mut chain, mut said) = (Chain::default(), Stopwatch::start());
    while chain.read_page(&transaction)? {
        chain.write_hashes(&transaction)?;
        if said.elapsed() >= PROGRESS {
            said = Stopwatch::start();
            tracing::info!(position = chain.position.get(), of = head.get(), "upgrading the event log");
        }
    }
    chain.finish_commit();
    chain.write_hashes(&transaction)?;
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction.commit()?;
    tracing::info!("the event log is upgraded; older versions of Kontor cannot read it any more");
    Ok(())
}

/// The progress of an upgrade.
#[derive(Default)]
struct Chain {
    /// The position of the last event that was read.
    position: Position,
    /// The hash of the last whole commit.
    hash: CommitHash,
    /// The commit that the last event belongs to, with the position of its first event.
    commit: Option<(Position, CommitHasher)>,
    /// The hashes to write, each with the position of the commit's first event.
    hashes: Vec<(Position, CommitHash)>,
}

impl Chain {
    /// Reads the next events. Returns false if there are none.
    fn read_page(&mut self, connection: &Connection) -> Result<bool, UpgradeError> {
        let start = self.position;
        let mut statement = connection.prepare_cached(NEXT_EVENTS)?;
        let mut rows = statement.query((start, PAGE))?;
        while let Some(row) = rows.next()? {
            self.position = row.get(0)?;
            let position = self.position;
            self.add(row).map_err(|source| UpgradeError::Damaged { position, source })?;
        }
        Ok(self.position > start)
    }

    /// Adds an event to its commit.
    fn add(&mut self, row: &Row<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        if row.get::<_, u32>(3)? == 0 {
            self.finish_commit();
            let stream = StreamId::parse(row.get_ref(1)?.as_str()?)?;
            let meta = meta::read(CommandId::from(row.get::<_, String>(6)?), row.get_ref(7)?.as_str()?)?;
            let hasher = CommitHasher::begin(self.hash, self.position, &stream, row.get(2)?, &meta);
            self.commit = Some((self.position, hasher));
        }
        let (_, hasher) = self.commit.as_mut().ok_or("the first event of its command is missing")?;
        hasher.event(row.get_ref(4)?.as_str()?, row.get_ref(5)?.as_str()?);
        Ok(())
    }

    fn finish_commit(&mut self) {
        if let Some((position, hasher)) = self.commit.take() {
            self.hash = hasher.finish();
            self.hashes.push((position, self.hash));
        }
    }

    fn write_hashes(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(SET_HASH)?;
        self.hashes.drain(..).try_for_each(|row| statement.execute(row).map(drop))
    }
}
