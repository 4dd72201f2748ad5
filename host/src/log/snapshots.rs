//! States of aggregates, kept so that they need not be folded from their first event.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rusqlite::{Connection, OptionalExtension, params};

use super::OpenError;
use super::readers::{Readers, Unreadable};
use super::thread::Joined;
use crate::model::{Json, StreamId, Version};

const FILE: &str = "snapshots.db";

/// Raised with every change of the table. A file of another layout is thrown away.
const LAYOUT: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE snapshots (
        stream TEXT PRIMARY KEY,
        state_version INTEGER NOT NULL,
        version INTEGER NOT NULL,
        state TEXT NOT NULL,
        view TEXT NOT NULL
    ) STRICT";

/// Snapshots that may wait to be written, and the most in one transaction. Each holds a state in memory; a busy host writes
/// this many in a few milliseconds.
const QUEUE: usize = 256;

/// An aggregate as it was at one version of its stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub version: Version,
    pub state: Json,
    pub view: Json,
}

/// The latest snapshot of each stream, in a file of its own. The file may be deleted at any time, and must be when an older
/// copy of the log is put back, because snapshots may then be ahead of it.
pub struct Snapshots {
    // The order matters: without the queue the writer ends.
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
    /// Opens the snapshots in `dir`, which must be there. Starts afresh if the file cannot be used.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let file = dir.join(FILE);
        let connection = match connect(&file) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "starting afresh with snapshots");
                remove(dir).map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
                connect(&file).map_err(|source| OpenError::Database { file: file.clone(), source })?
            }
        };
        let (queue, saves) = sync_channel(QUEUE);
        let _writer = Joined::spawn("snapshots", move || write_all(connection, &saves))
            .map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
        Ok(Self { queue, readers: Readers::new(file), _writer })
    }

    /// The snapshot of a stream, if there is one of this shape of the state. None also if it cannot be read.
    pub async fn load(&self, stream: &StreamId, state_version: u32) -> Option<Snapshot> {
        let name = stream.clone();
        let read = self.readers.run(move |connection| read(connection, &name, state_version)).await;
        read.unwrap_or_else(|error| {
            tracing::warn!(%stream, error = &error as &dyn std::error::Error, "a snapshot cannot be read");
            None
        })
    }

    /// Writes a snapshot some time later, in place of the stream's last one. To be called only for a version that the log
    /// has acknowledged. When too many are waiting it is forgotten: the state is then folded from an older one.
    pub fn save(&self, stream: StreamId, state_version: u32, snapshot: Snapshot) {
        match self.queue.try_send(Save { stream, state_version, snapshot }) {
            Ok(()) => {}
            Err(TrySendError::Full(save) | TrySendError::Disconnected(save)) => {
                tracing::debug!(stream = %save.stream, "a snapshot was not kept");
            }
        }
    }
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // What a power cut takes is folded again.
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

fn write_all(mut connection: Connection, saves: &Receiver<Save>) {
    while let Ok(first) = saves.recv() {
        let group = std::iter::once(first).chain(saves.try_iter().take(QUEUE - 1));
        if let Err(error) = write(&mut connection, group) {
            tracing::warn!(error = &error as &dyn std::error::Error, "snapshots cannot be written");
        }
    }
}

fn write(connection: &mut Connection, saves: impl Iterator<Item = Save>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut replace = transaction.prepare_cached(
            "INSERT OR REPLACE INTO snapshots (stream, state_version, version, state, view) VALUES (?1, ?2, ?3, ?4, ?5)",
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
    async fn the_last_snapshot_of_the_same_shape_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        snapshots.save(order(), 1, snapshot(10));
        snapshots.save(order(), 1, snapshot(20));
        drop(snapshots);

        let snapshots = Snapshots::open(dir.path()).unwrap();
        assert_eq!(snapshots.load(&order(), 1).await, Some(snapshot(20)));
        assert_eq!(snapshots.load(&order(), 2).await, None, "a state of another shape is of no use");
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
    async fn a_damaged_snapshot_is_none() {
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
