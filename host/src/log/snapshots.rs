//! Snapshots: states of aggregates, stored so that a stream need not be folded from its first event.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rusqlite::{Connection, OptionalExtension, params};

use super::OpenError;
use super::readers::{Readers, Unreadable};
use super::thread::Joined;
use crate::error::Chain;
use crate::model::{Json, StreamId, Version};

const FILE: &str = "snapshots.db";

/// The version of the table. A file with another one is replaced.
const LAYOUT: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE snapshots (
        stream TEXT PRIMARY KEY,
        state_version INTEGER NOT NULL,
        version INTEGER NOT NULL,
        state TEXT NOT NULL,
        view TEXT NOT NULL
    ) STRICT";

/// The largest number of snapshots that wait to be written, and of those in one transaction. Each holds a
/// state in memory; a busy host writes this many in a few milliseconds.
const QUEUE: usize = 256;

/// The state of an aggregate at one version of its stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The version of the stream.
    pub version: Version,
    /// The state at that version.
    pub state: Json,
    /// The part of the state that clients see.
    pub view: Json,
}

/// The latest snapshot of each stream, in a file of its own. The file may be deleted at any time, and must be
/// deleted when an older copy of the log is restored, because snapshots may then be ahead of the log.
pub struct Snapshots {
    // The order matters: the writer ends once the queue is dropped.
    queue: SyncSender<Save>,
    readers: Readers,
    _writer: Joined,
}

struct Save {
    stream: StreamId,
    state_version: u32,
    snapshot: Snapshot,
}

impl Snapshots {
    /// Opens the snapshots in `dir`, which must exist. Replaces a file that cannot be used.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let file = dir.join(FILE);
        let connection = match connect(&file) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot use the snapshots; starting without any");
                remove(dir).map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
                connect(&file).map_err(|source| OpenError::Database { file: file.clone(), source })?
            }
        };
        let (queue, saves) = sync_channel(QUEUE);
        let _writer = Joined::spawn("snapshots", move || write_all(connection, &saves))
            .map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
        Ok(Self { queue, readers: Readers::new(file), _writer })
    }

    /// Returns the snapshot of a stream. `None`: there is none with this state version, or it cannot be read.
    pub async fn load(&self, stream: &StreamId, state_version: u32) -> Option<Snapshot> {
        let name = stream.clone();
        let read = self.readers.run(move |connection| read(connection, &name, state_version)).await;
        read.unwrap_or_else(|error| {
            tracing::warn!(%stream, error = %Chain(&error), "cannot read a snapshot; folding the events");
            None
        })
    }

    /// Queues a snapshot that replaces the previous one of the stream. The log must have acknowledged its
    /// version. Drops the snapshot if too many are waiting: the state is then folded from an older one.
    pub fn save(&self, stream: StreamId, state_version: u32, snapshot: Snapshot) {
        match self.queue.try_send(Save { stream, state_version, snapshot }) {
            Ok(()) => {}
            Err(TrySendError::Full(save) | TrySendError::Disconnected(save)) => {
                tracing::debug!(stream = %save.stream, "dropped a snapshot; the older one stays");
            }
        }
    }
}

/// Opens a connection that can write, and creates the table unless it has the current layout.
fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // After a power cut, lost states are folded again.
    connection.pragma_update(None, "synchronous", "normal")?;
    let layout: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if layout != LAYOUT {
        let transaction = connection.transaction()?;
        transaction.execute_batch("DROP TABLE IF EXISTS snapshots")?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Deletes the database and its write-ahead log.
fn remove(dir: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        match fs::remove_file(dir.join(format!("{FILE}{suffix}"))) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn read(
    connection: &Connection,
    stream: &StreamId,
    state_version: u32,
) -> Result<Option<Snapshot>, Unreadable> {
    let mut statement = connection.prepare_cached(
        "SELECT version, state, view FROM snapshots WHERE stream = ?1 AND state_version = ?2",
    )?;
    let row: Option<(Version, String, String)> = statement
        .query_row((stream.as_str(), state_version), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((version, state, view)) = row else {
        return Ok(None);
    };
    let parse = |text| {
        let damaged =
            |error: serde_json::Error| Unreadable::Damaged { what: stream.to_string(), source: error.into() };
        Json::parse(text).map_err(damaged)
    };
    Ok(Some(Snapshot { version, state: parse(state)?, view: parse(view)? }))
}

/// Writes everything that is queued, until the queue is dropped.
fn write_all(mut connection: Connection, saves: &Receiver<Save>) {
    while let Ok(first) = saves.recv() {
        let group = std::iter::once(first).chain(saves.try_iter().take(QUEUE - 1));
        if let Err(error) = write(&mut connection, group) {
            tracing::warn!(error = %Chain(&error), "cannot write snapshots; the older ones stay");
        }
    }
}

fn write(connection: &mut Connection, saves: impl Iterator<Item = Save>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut replace = transaction.prepare_cached(
            "INSERT OR REPLACE INTO snapshots (stream, state_version, version, state, view)
            VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for Save { stream, state_version, snapshot } in saves {
            let Snapshot { version, state, view } = snapshot;
            replace.execute(params![
                stream.as_str(),
                state_version,
                version,
                state.as_str(),
                view.as_str()
            ])?;
        }
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> StreamId {
        StreamId::new("order", "1").unwrap()
    }

    fn snapshot(version: u64) -> Snapshot {
        let view = Json::parse(r#"{ "status": "pending" }"#.to_owned()).unwrap();
        Snapshot { version: Version::new(version), state: Json::empty_object(), view }
    }

    #[tokio::test]
    async fn the_latest_snapshot_with_the_same_state_version_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        snapshots.save(order(), 1, snapshot(10));
        snapshots.save(order(), 1, snapshot(20));
        drop(snapshots);

        let snapshots = Snapshots::open(dir.path()).unwrap();
        assert_eq!(snapshots.load(&order(), 1).await, Some(snapshot(20)));
        assert_eq!(snapshots.load(&order(), 2).await, None, "a snapshot of another state version is useless");
        assert_eq!(snapshots.load(&StreamId::new("order", "2").unwrap(), 1).await, None);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_replaced() {
        let text = |dir: &Path| fs::write(dir.join(FILE), "not a database ".repeat(100)).unwrap();
        let other_layout = |dir: &Path| {
            let connection = Connection::open(dir.join(FILE)).unwrap();
            connection.execute_batch("CREATE TABLE snapshots (old); PRAGMA user_version = 9").unwrap();
        };
        let cases: [&dyn Fn(&Path); 2] = [&text, &other_layout];
        for prepare in cases {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            let snapshots = Snapshots::open(dir.path()).unwrap();
            assert_eq!(snapshots.load(&order(), 1).await, None);
            snapshots.save(order(), 1, snapshot(1));
            drop(snapshots);
            let snapshots = Snapshots::open(dir.path()).unwrap();
            assert_eq!(snapshots.load(&order(), 1).await, Some(snapshot(1)));
        }
    }

    #[tokio::test]
    async fn a_damaged_snapshot_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        snapshots.save(order(), 1, snapshot(1));
        drop(snapshots);
        Connection::open(dir.path().join(FILE))
            .unwrap()
            .execute_batch("UPDATE snapshots SET state = '{'")
            .unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        assert_eq!(snapshots.load(&order(), 1).await, None);
    }
}
