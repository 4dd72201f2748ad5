//! Snapshots: states of aggregates, stored so that a stream need not be folded from its first event.

use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::derived::Rows;
use super::readers::{Readers, Unreadable};
use super::thread::Joined;
use super::{EventLog, LogFile, OpenError, ReadError, derived};
use crate::error::Chain;
use crate::garbage::{Collection, Garbage};
use crate::model::{CommitHash, Digest, Json, StreamId, Version, hash_prefix};

const FILE: &str = "snapshots.db";

/// The version of the table. A file with another one is replaced.
const LAYOUT: i32 = 4;

const SCHEMA: &str = "
    CREATE TABLE snapshots (
        stream TEXT NOT NULL,
        -- The component that has folded the state.
        digest TEXT NOT NULL,
        version INTEGER NOT NULL,
        -- The hash of the last commit that is folded.
        hash BLOB NOT NULL,
        state BLOB NOT NULL,
        view TEXT NOT NULL,
        -- The checksum of all that is above.
        checksum BLOB NOT NULL,
        PRIMARY KEY (stream, version, digest)
    ) STRICT";

/// The snapshots of other components than those of a JSON array.
const OF_OTHERS: Rows = Rows {
    table: "snapshots",
    key: "rowid",
    // The index of the primary key has the digest, so the states of the needed ones are not read.
    condition: "digest NOT IN (SELECT value FROM json_each(?1))",
    size: "length(state) + length(view)",
};

/// The number of components whose snapshots of a stream are kept: the running one, and the one before it,
/// which a rollback uses again.
const KEPT: usize = 2;

/// The length of a stretch of a stream, in events. The latest snapshot of each stretch and component is kept,
/// so that the state at any version is that many events away at most.
const STRETCH: usize = 1_000;
/// The bytes of snapshots that are kept for each event: the stretches of large states are longer.
const BYTES_PER_EVENT: usize = 100;

/// The time for which snapshots gather, so that one transaction writes those of many streams.
const LINGER: Duration = Duration::from_millis(50);

/// The largest number of snapshots that wait to be written, and of those in one transaction. Each holds a
/// state in memory; a busy host writes this many in a few milliseconds.
const QUEUE: usize = 256;

/// The state of an aggregate at one version of its stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The version of the stream.
    pub version: Version,
    /// The component that has folded the state.
    pub digest: Digest,
    /// The state at that version.
    pub state: Bytes,
    /// The part of the state that clients see.
    pub view: Json,
}

/// The snapshots of each stream, in a file of its own, which may be deleted at any time.
pub struct Snapshots {
    // The order matters: the writer ends once the queue is dropped.
    queue: SyncSender<(StreamId, Snapshot)>,
    readers: Readers,
    _writer: Joined,
}

impl Snapshots {
    /// Opens the snapshots in `dir`, where the log or its copy is. Replaces a file that cannot be used.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let log = LogFile::open(dir)?;
        let file = dir.join(FILE);
        let connection = match connect(&file) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot use the snapshots; starting without any");
                derived::remove(&file)
                    .map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
                connect(&file).map_err(|source| OpenError::Database { file: file.clone(), source })?
            }
        };
        let (queue, saves) = sync_channel(QUEUE);
        let _writer = Joined::spawn("snapshots", move || write_all(connection, &log, &saves))
            .map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
        Ok(Self { queue, readers: Readers::new(file), _writer })
    }

    /// Returns the latest snapshot of a stream that one of these components has folded, if its last commit is
    /// in the log. `up_to`: not a later one than at this version. `None`: there is none, or it cannot be
    /// read.
    pub async fn load(
        &self,
        log: &dyn EventLog,
        stream: &StreamId,
        folded_by: Vec<Digest>,
        up_to: Option<Version>,
    ) -> Option<Snapshot> {
        let name = stream.clone();
        let read = self.readers.run(move |connection| read(connection, &name, &folded_by, up_to)).await;
        let checked = match read {
            Ok(None) => return None,
            Ok(Some((snapshot, hash))) => {
                let last = log.read(stream, snapshot.version.before(1), 1).await;
                last.map(|last| last.first().is_some_and(|event| event.hash == hash).then_some(snapshot))
            }
            Err(error) => Err(error.into()),
        };
        checked.unwrap_or_else(|error| {
            tracing::warn!(%stream, error = %Chain(&error), "cannot read a snapshot; folding the events");
            None
        })
    }

    /// Queues a snapshot that replaces earlier ones of its stretch of the stream. The log must have
    /// acknowledged its version. Drops the snapshot if too many are waiting: the state is then folded from an
    /// older one.
    pub fn save(&self, stream: StreamId, snapshot: Snapshot) {
        match self.queue.try_send((stream, snapshot)) {
            Ok(()) => {}
            Err(TrySendError::Full((stream, _)) | TrySendError::Disconnected((stream, _))) => {
                tracing::debug!(%stream, "dropped a snapshot; the older one stays");
            }
        }
    }

    /// Collects the snapshots of all other components.
    pub(crate) async fn collect(
        &self,
        needed: &HashSet<Digest>,
        collection: Collection,
    ) -> Result<Garbage, ReadError> {
        let needed: Vec<_> = needed.iter().map(ToString::to_string).collect();
        let (needed, file) = (serde_json::Value::from(needed).to_string(), self.readers.file().to_owned());
        // A connection of its own: the writer waits for it as it would for another host.
        let collect = move || OF_OTHERS.collect_all(&connect(&file)?, &needed, collection);
        let collected = tokio::task::spawn_blocking(collect).await.map_err(Unreadable::from)?;
        Ok(collected.map_err(Unreadable::from)?)
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

/// Returns the latest snapshot of a stream that one of these components has folded, with the hash of its last
/// commit. `up_to`: its version is not above this one.
fn read(
    connection: &Connection,
    stream: &StreamId,
    folded_by: &[Digest],
    up_to: Option<Version>,
) -> Result<Option<(Snapshot, CommitHash)>, Unreadable> {
    let mut statement = connection.prepare_cached(
        "SELECT digest, version, hash, state, view, checksum FROM snapshots
        WHERE stream = ?1 AND version <= ?2 ORDER BY version DESC",
    )?;
    let up_to = up_to.map_or(i64::MAX.cast_unsigned(), Version::get);
    let mut rows = statement.query(params![stream.as_str(), up_to])?;
    while let Some(row) = rows.next()? {
        let digest: Digest = row.get(0)?;
        if !folded_by.contains(&digest) {
            continue;
        }
        let (version, hash, state, view): (_, _, Vec<u8>, String) =
            (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let damaged = |source| Unreadable::Damaged { what: format!("the snapshot of {stream}"), source };
        if row.get::<_, [u8; 8]>(5)? != checksum(stream, digest, version, hash, [&state, view.as_bytes()]) {
            return Err(damaged("its checksum is wrong".into()));
        }
        let view = Json::parse(view).map_err(|error| damaged(error.into()))?;
        let snapshot = Snapshot { version, digest, state: state.into(), view };
        return Ok(Some((snapshot, hash)));
    }
    Ok(None)
}

/// Returns the checksum of a row: a state decides about money, and SQLite does not notice a changed text.
fn checksum(
    stream: &StreamId,
    digest: Digest,
    version: Version,
    hash: CommitHash,
    [state, view]: [&[u8]; 2],
) -> [u8; 8] {
    let version = version.get().to_le_bytes();
    let row = [stream.as_str().as_bytes(), digest.as_bytes(), &version, hash.as_bytes()];
    hash_prefix(&[&row[..], &[state, view]].concat())
}

/// Writes everything that is queued, until the queue is dropped.
fn write_all(mut connection: Connection, log: &LogFile, saves: &Receiver<(StreamId, Snapshot)>) {
    while let Ok(first) = saves.recv() {
        thread::sleep(LINGER);
        let group: Vec<_> = std::iter::once(first).chain(saves.try_iter().take(QUEUE - 1)).collect();
        let ends = group.iter().map(|(stream, snapshot)| (stream, snapshot.version));
        let hashes = match log.commit_hashes(ends) {
            Ok(hashes) => hashes,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot read the log; snapshots are not kept");
                continue;
            }
        };
        let with_hash = group.into_iter().zip(hashes);
        let with_hash = with_hash.filter_map(|((stream, snapshot), hash)| Some((stream, snapshot, hash?)));
        if let Err(error) = write(&mut connection, with_hash) {
            tracing::warn!(error = %Chain(&error), "cannot write snapshots; the older ones stay");
        }
    }
}

fn write(
    connection: &mut Connection,
    saves: impl Iterator<Item = (StreamId, Snapshot, CommitHash)>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut replace = transaction.prepare_cached(
            "INSERT OR REPLACE INTO snapshots (stream, digest, version, hash, state, view, checksum)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let mut thin_out = transaction.prepare_cached(
            "DELETE FROM snapshots WHERE stream = ?1 AND digest = ?2 AND version < ?3
                AND version >= ?3 / ?4 * ?4",
        )?;
        let mut clear = transaction.prepare_cached(
            "DELETE FROM snapshots WHERE stream = ?1 AND digest NOT IN
                (SELECT digest FROM snapshots WHERE stream = ?1
                GROUP BY digest ORDER BY max(rowid) DESC LIMIT ?2)",
        )?;
        for (stream, Snapshot { version, digest, state, view }, hash) in saves {
            let checksum = checksum(&stream, digest, version, hash, [&state, view.as_str().as_bytes()]);
            let (name, state, view) = (stream.as_str(), &state[..], view.as_str());
            replace.execute(params![name, digest, version, hash, state, view, checksum])?;
            let stretch = STRETCH.max((state.len() + view.len()) / BYTES_PER_EVENT);
            thin_out.execute(params![name, digest, version, stretch])?;
            clear.execute(params![name, KEPT])?;
        }
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::log::{Append, EmbeddedLog};
    use crate::model::{CommandId, Meta, NewEvent};

    fn order() -> StreamId {
        StreamId::new("order", "1").unwrap()
    }

    /// Returns a log whose order has these events.
    async fn log(dir: &Path, payloads: impl IntoIterator<Item = u8>) -> EmbeddedLog {
        let log = EmbeddedLog::open(dir).unwrap();
        for (version, payload) in (0..).zip(payloads) {
            let event = NewEvent { name: "changed".into(), payload: Json::of(&payload).unwrap() };
            let meta = Meta { command_id: CommandId::new(), ..Meta::default() };
            let (stream, expected) = (order(), Version::new(version));
            log.append(vec![Append {
                events: vec![event],
                meta: meta.into(),
                ..Append::nothing(stream, expected)
            }])
            .await
            .unwrap();
        }
        log
    }

    fn digest(component: &str) -> Digest {
        Digest::of(component.as_bytes())
    }

    fn snapshot(version: u64, component: &str) -> Snapshot {
        let view = Json::parse(r#"{ "status": "pending" }"#.to_owned()).unwrap();
        let (version, digest) = (Version::new(version), digest(component));
        Snapshot { version, digest, state: Bytes::from_static(b"{}"), view }
    }

    #[tokio::test]
    async fn the_latest_snapshot_of_a_component_that_folds_alike_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), [1, 2]).await;
        let snapshots = Snapshots::open(dir.path()).unwrap();
        for (version, component) in [(1, "one"), (2, "one"), (1, "two")] {
            snapshots.save(order(), snapshot(version, component));
        }
        drop(snapshots);

        let snapshots = Snapshots::open(dir.path()).unwrap();
        let table: [(&[&str], _); 5] = [
            (&["one"], Some(snapshot(2, "one"))),
            (&["two"], Some(snapshot(1, "two"))),
            (&["two", "one"], Some(snapshot(2, "one"))),
            (&["three"], None),
            (&[], None),
        ];
        for (components, expected) in table {
            let folded_by = components.iter().map(|component| digest(component)).collect();
            assert_eq!(snapshots.load(&log, &order(), folded_by, None).await, expected, "{components:?}");
        }
        let other = StreamId::new("order", "2").unwrap();
        assert_eq!(snapshots.load(&log, &other, vec![digest("one")], None).await, None);
    }

    #[tokio::test]
    async fn of_each_stretch_of_a_stream_the_latest_snapshot_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), (0..=255).cycle().take(2_500)).await;
        let snapshots = Snapshots::open(dir.path()).unwrap();
        for version in (100..=2_500).step_by(100) {
            snapshots.save(order(), snapshot(version, "one"));
        }
        drop(snapshots);
        let snapshots = Snapshots::open(dir.path()).unwrap();
        let table = [
            (899, None),
            (900, Some(900)),
            (1_899, Some(900)),
            (1_900, Some(1_900)),
            (2_499, Some(1_900)),
            (2_500, Some(2_500)),
            (9_999, Some(2_500)),
        ];
        for (up_to, expected) in table {
            let folded_by = vec![digest("one"), digest("two")];
            let loaded = snapshots.load(&log, &order(), folded_by, Some(Version::new(up_to))).await;
            let expected = expected.map(|version| snapshot(version, "one"));
            assert_eq!(loaded, expected, "up to {up_to}");
        }
    }

    #[tokio::test]
    async fn a_snapshot_of_another_log_is_not_loaded() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (own, other) = (log(dir.path(), [1, 2]).await, log(other.path(), [1, 3]).await);
        let snapshots = Snapshots::open(dir.path()).unwrap();
        snapshots.save(order(), snapshot(2, "one"));
        // Not in the log: nothing is written.
        snapshots.save(order(), snapshot(3, "two"));
        drop(snapshots);
        let snapshots = Snapshots::open(dir.path()).unwrap();
        assert_eq!(snapshots.load(&own, &order(), vec![digest("one")], None).await, Some(snapshot(2, "one")));
        assert_eq!(snapshots.load(&own, &order(), vec![digest("two")], None).await, None);
        assert_eq!(snapshots.load(&other, &order(), vec![digest("one")], None).await, None);
    }

    #[tokio::test]
    async fn snapshots_of_components_that_are_not_needed_are_collected() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), [1, 2]).await;
        let snapshots = Snapshots::open(dir.path()).unwrap();
        for (version, component) in [(1, "one"), (2, "two")] {
            snapshots.save(order(), snapshot(version, component));
        }
        drop(snapshots);
        let snapshots = Snapshots::open(dir.path()).unwrap();
        let needed = HashSet::from([digest("two")]);
        // Its state and its view.
        let found = Garbage { items: 1, bytes: 25 };
        for (collection, garbage) in [
            (Collection::DryRun, found),
            (Collection::Remove, found),
            (Collection::Remove, Garbage::default()),
        ] {
            let collected = snapshots.collect(&needed, collection).await.unwrap();
            assert_eq!(collected, garbage, "{collection:?}");
        }
        assert_eq!(snapshots.load(&log, &order(), vec![digest("one")], None).await, None);
        assert_eq!(snapshots.load(&log, &order(), vec![digest("two")], None).await, Some(snapshot(2, "two")));
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
            let log = log(dir.path(), [1, 2]).await;
            prepare(dir.path());
            let snapshots = Snapshots::open(dir.path()).unwrap();
            assert_eq!(snapshots.load(&log, &order(), vec![digest("one")], None).await, None);
            snapshots.save(order(), snapshot(1, "one"));
            drop(snapshots);
            let snapshots = Snapshots::open(dir.path()).unwrap();
            let loaded = snapshots.load(&log, &order(), vec![digest("one")], None).await;
            assert_eq!(loaded, Some(snapshot(1, "one")));
        }
    }

    #[tokio::test]
    async fn a_damaged_snapshot_is_ignored() {
        for damage in
            ["state = x'7b'", "state = CAST('{\"total\": 1}' AS BLOB)", "version = 2", "view = '{}'"]
        {
            let dir = tempfile::tempdir().unwrap();
            let log = log(dir.path(), [1, 2]).await;
            let snapshots = Snapshots::open(dir.path()).unwrap();
            snapshots.save(order(), snapshot(1, "one"));
            drop(snapshots);
            Connection::open(dir.path().join(FILE))
                .unwrap()
                .execute_batch(&format!("UPDATE snapshots SET {damage}"))
                .unwrap();
            let snapshots = Snapshots::open(dir.path()).unwrap();
            assert_eq!(snapshots.load(&log, &order(), vec![digest("one")], None).await, None, "{damage}");
        }
    }
}
