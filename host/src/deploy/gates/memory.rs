//! The states that components have folded in the gate `history`, in a file beside the log: a later deployment
//! folds only what is new. The file is derived from the log, and may be deleted at any time.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;

use crate::error::Chain;
use crate::garbage::{Collection, Garbage};
use crate::log::EventLog;
use crate::log::derived::{self, Rows};
use crate::model::{Digest, LogMark, StreamId, Version, hash_prefix};

const FILE: &str = "folds.db";

/// The version of the tables. A file with another one is replaced.
const LAYOUT: u32 = 1;

const SCHEMA: &str = "
    CREATE TABLE components (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE folds (
        -- The component that has folded the stream.
        component INTEGER NOT NULL,
        stream TEXT NOT NULL,
        -- The version up to which it has.
        version INTEGER NOT NULL,
        hash BLOB NOT NULL,
        -- The state itself, of a long stream: the events after it are folded on it.
        state BLOB,
        -- The checksum of all that is above.
        checksum BLOB NOT NULL,
        PRIMARY KEY (component, stream)
    ) STRICT;
    -- The newest event that is folded.
    CREATE TABLE mark (position INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
    INSERT INTO mark VALUES (0, zeroblob(32));";

/// The folds of other components than those of a JSON array.
const OF_OTHERS: Rows = Rows {
    table: "folds",
    key: "rowid",
    condition: "component NOT IN
        (SELECT id FROM components WHERE digest IN (SELECT value FROM json_each(?1)))",
    size: "2 * length(stream) + 60 + coalesce(length(state), 0)",
};

/// The length of a stream from which on its state is kept. Shorter ones are folded anew as quickly.
const LONG: Version = Version::new(100);

/// The state of a stream that a component has folded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remembered {
    /// The version of the stream.
    pub(super) version: Version,
    pub(super) hash: StateHash,
    /// The state, if the stream is long.
    pub(super) state: Option<Bytes>,
}

/// The hash of a state. States that are the same JSON, apart from the order of members, have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateHash([u8; 32]);

impl StateHash {
    pub(super) fn of(state: &[u8]) -> Self {
        // The members of such a value are ordered by their names.
        let canonical = serde_json::from_slice::<Value>(state).map(|value| value.to_string());
        Self(*Digest::of(canonical.as_deref().map_or(state, str::as_bytes)).as_bytes())
    }
}

impl Remembered {
    pub(super) fn of(version: Version, state: &Bytes) -> Self {
        let kept = (version >= LONG).then(|| state.clone());
        Self { version, hash: StateHash::of(state), state: kept }
    }

    /// Returns the version up to which a stream with the version `end` need not be folded again.
    pub(super) fn usable(known: Option<&Self>, end: Version) -> Version {
        let usable = |known: &&Self| known.version == end || known.version < end && known.state.is_some();
        known.filter(usable).map_or(Version::START, |known| known.version)
    }
}

/// A fold to be remembered: the stream, the component, and the mark of the last folded event.
pub(super) struct Folded {
    pub(super) stream: StreamId,
    pub(super) digest: Digest,
    pub(super) remembered: Remembered,
    pub(super) mark: LogMark,
}

/// The memory of folds.
#[derive(Clone)]
pub(crate) struct FoldMemory {
    /// `None`: the file cannot be used, so nothing is remembered.
    connection: Option<Arc<Mutex<Connection>>>,
}

impl FoldMemory {
    /// Opens the file in the data directory. Makes it anew if it is missing, damaged, or of another log.
    pub(crate) async fn open(data: &Path, log: &dyn EventLog) -> Self {
        let file = data.join(FILE);
        let connection = match existing(&file) {
            // Err: the log cannot be read, which others report. Nothing is recalled that it may not have.
            Ok(Some((connection, mark))) if log.contains(mark).await.unwrap_or(false) => Ok(connection),
            Ok(_) => create(&file),
            Err(error) if derived::is_damage(&error) => {
                tracing::warn!(
                    error = %Chain(&error),
                    "the memory of folds is damaged; all streams are folded again"
                );
                create(&file)
            }
            Err(error) => Err(error),
        };
        let connection = connection.map_err(|error| forgotten(&error)).ok();
        Self { connection: connection.map(|connection| Arc::new(Mutex::new(connection))) }
    }

    /// Returns what a component has folded of these streams.
    pub(super) async fn recall(
        &self,
        digest: Digest,
        streams: Vec<StreamId>,
    ) -> HashMap<StreamId, Remembered> {
        self.with(move |connection| read(connection, digest, streams)).await.unwrap_or_default()
    }

    /// Remembers folds.
    pub(super) async fn keep(&self, folds: Vec<Folded>) {
        self.with(move |connection| write(connection, &folds)).await;
    }

    /// Collects the folds of all other components.
    pub(crate) async fn collect(
        &self,
        needed: &HashSet<Digest>,
        collection: Collection,
    ) -> rusqlite::Result<Garbage> {
        let needed: Vec<_> = needed.iter().map(ToString::to_string).collect();
        let needed = Value::from(needed).to_string();
        let mut garbage = Garbage::default();
        loop {
            let needed = needed.clone();
            let collect =
                move |connection: &mut Connection| Ok(OF_OTHERS.collect(connection, &needed, collection));
            let Some(collected) = self.with(collect).await else { return Ok(garbage) };
            let (some, has_more) = collected?;
            garbage += some;
            if !has_more {
                return Ok(garbage);
            }
        }
    }

    /// Works with the file, if it can be used. Returns `None` if that fails.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<T> {
        let connection = self.connection.clone()?;
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection).map_err(|error| forgotten(&error)).ok()
        });
        // Err: it has panicked, which the panic hook has reported.
        done.await.ok().flatten()
    }
}

fn forgotten(error: &rusqlite::Error) {
    tracing::warn!(
        error = %Chain(error),
        "cannot remember what components have folded; deployments fold all of it again"
    );
}

/// Opens a file, and returns the mark of the newest event that is folded. Returns `None` if there is none of
/// this layout.
fn existing(file: &Path) -> rusqlite::Result<Option<(Connection, LogMark)>> {
    let Some(connection) = derived::existing(file, LAYOUT)? else { return Ok(None) };
    let mark = connection.query_row("SELECT position, hash FROM mark", [], |row| {
        Ok(LogMark { position: row.get(0)?, hash: row.get(1)? })
    })?;
    Ok(Some((connection, mark)))
}

fn create(file: &Path) -> rusqlite::Result<Connection> {
    derived::remove(file).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let connection = derived::connect(file)?;
    connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {LAYOUT}; COMMIT;"))?;
    Ok(connection)
}

fn read(
    connection: &Connection,
    digest: Digest,
    streams: Vec<StreamId>,
) -> rusqlite::Result<HashMap<StreamId, Remembered>> {
    let mut statement = connection.prepare_cached(
        "SELECT version, hash, state, checksum FROM folds
         WHERE component = (SELECT id FROM components WHERE digest = ?1) AND stream = ?2",
    )?;
    let mut all = HashMap::new();
    for stream in streams {
        let found = statement.query_row(params![digest, stream.as_str()], |row| {
            let state = row.get::<_, Option<Vec<u8>>>(2)?.map(Into::into);
            let remembered = Remembered { version: row.get(0)?, hash: StateHash(row.get(1)?), state };
            Ok((remembered, row.get::<_, [u8; 8]>(3)?))
        });
        // A row with a wrong checksum is damaged, and counts as none.
        if let Some((remembered, sum)) = found.optional()?
            && sum == checksum(digest, &stream, &remembered)
        {
            all.insert(stream, remembered);
        }
    }
    Ok(all)
}

fn write(connection: &mut Connection, folds: &[Folded]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut add = transaction.prepare_cached("INSERT OR IGNORE INTO components (digest) VALUES (?1)")?;
        let mut replace = transaction.prepare_cached(
            "INSERT OR REPLACE INTO folds (component, stream, version, hash, state, checksum)
             VALUES ((SELECT id FROM components WHERE digest = ?1), ?2, ?3, ?4, ?5, ?6)",
        )?;
        for digest in folds.iter().map(|fold| fold.digest).collect::<HashSet<_>>() {
            add.execute([digest])?;
        }
        for Folded { stream, digest, remembered, .. } in folds {
            let Remembered { version, hash, state } = remembered;
            let checksum = checksum(*digest, stream, remembered);
            replace.execute(params![digest, stream.as_str(), version, hash.0, state.as_deref(), checksum])?;
        }
        if let Some(LogMark { position, hash }) =
            folds.iter().map(|fold| fold.mark).max_by_key(|mark| mark.position)
        {
            let advance = "UPDATE mark SET position = ?1, hash = ?2 WHERE position < ?1";
            transaction.prepare_cached(advance)?.execute(params![position, hash])?;
        }
    }
    transaction.commit()
}

/// Returns the checksum of a row: by it the components share states, and SQLite does not notice a changed
/// byte.
fn checksum(digest: Digest, stream: &StreamId, remembered: &Remembered) -> [u8; 8] {
    let Remembered { version, hash, state } = remembered;
    let version = version.get().to_le_bytes();
    let state = state.as_deref().unwrap_or_default();
    hash_prefix(&[digest.as_bytes(), stream.as_str().as_bytes(), &version, &hash.0, state])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Append, EmbeddedLog};
    use crate::model::{CommandId, Json, Meta, NewEvent};

    async fn log_with(dir: &Path, payload: u8) -> (EmbeddedLog, LogMark) {
        let log = EmbeddedLog::open(dir).unwrap();
        let event = NewEvent { name: "changed".into(), payload: Json::of(&payload).unwrap() };
        let meta = Meta { command_id: CommandId::new(), ..Meta::default() };
        let append =
            Append { events: vec![event], meta: meta.into(), ..Append::nothing(stream("a"), Version::START) };
        log.append(vec![append]).await.unwrap();
        let mark = log.read(&stream("a"), Version::START, 1).await.unwrap()[0].mark();
        (log, mark)
    }

    fn stream(id: &str) -> StreamId {
        StreamId::new("order", id).unwrap()
    }

    fn fold(id: &str, version: u64, mark: LogMark) -> Folded {
        let state = Bytes::from_static(br#"{"b":1,"a":[2]}"#);
        let remembered = Remembered::of(Version::new(version), &state);
        Folded { stream: stream(id), digest: Digest::of(b"new"), remembered, mark }
    }

    #[test]
    fn states_have_the_same_hash_if_they_are_the_same_json() {
        let hashes = [r#"{"a":[2],"b":1}"#, r#"{ "b": 1, "a": [2] }"#, r#"{"b":1,"a":[3]}"#, "no json"]
            .map(|state| StateHash::of(state.as_bytes()));
        assert_eq!(hashes[0], hashes[1]);
        assert!(hashes[2] != hashes[0] && hashes[3] != hashes[0]);
    }

    #[tokio::test]
    async fn a_fold_is_remembered_through_a_restart_and_not_for_another_log() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (log, mark) = log_with(dir.path(), 1).await;
        let memory = FoldMemory::open(dir.path(), &log).await;
        memory.keep(vec![fold("a", 1, mark), fold("b", 200, mark), fold("d", 1, mark)]).await;
        let recalled = async |memory: &FoldMemory| {
            let recalled = memory.recall(Digest::of(b"new"), ["a", "b", "c"].map(stream).into()).await;
            let mut recalled: Vec<_> = recalled
                .into_iter()
                .map(|(stream, fold)| (stream.id().to_owned(), fold.state.is_some()))
                .collect();
            recalled.sort();
            recalled
        };
        let expected = [("a".to_owned(), false), ("b".to_owned(), true)];
        assert_eq!(recalled(&memory).await, expected);
        assert!(memory.recall(Digest::of(b"old"), ["a", "b", "c"].map(stream).into()).await.is_empty());
        drop(memory);
        let memory = FoldMemory::open(dir.path(), &log).await;
        assert_eq!(recalled(&memory).await, expected);

        let (foreign, _) = log_with(other.path(), 2).await;
        let memory = FoldMemory::open(dir.path(), &foreign).await;
        assert_eq!(recalled(&memory).await, []);
    }

    #[tokio::test]
    async fn a_damaged_row_counts_as_none_and_a_damaged_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (log, mark) = log_with(dir.path(), 1).await;
        let memory = FoldMemory::open(dir.path(), &log).await;
        memory.keep(vec![fold("a", 1, mark), fold("b", 1, mark)]).await;
        let damage = "UPDATE folds SET version = 2 WHERE stream = 'order/a'";
        Connection::open(dir.path().join(FILE)).unwrap().execute_batch(damage).unwrap();
        let recalled = memory.recall(Digest::of(b"new"), ["a", "b", "z"].map(stream).into()).await;
        assert_eq!(recalled.keys().collect::<Vec<_>>(), [&stream("b")]);
        drop(memory);
        std::fs::write(dir.path().join(FILE), "no database").unwrap();
        let memory = FoldMemory::open(dir.path(), &log).await;
        memory.keep(vec![fold("a", 1, mark)]).await;
        assert_eq!(memory.recall(Digest::of(b"new"), ["a", "b", "z"].map(stream).into()).await.len(), 1);
    }

    #[tokio::test]
    async fn the_folds_of_components_that_are_not_needed_are_collected() {
        let dir = tempfile::tempdir().unwrap();
        let (log, mark) = log_with(dir.path(), 1).await;
        let memory = FoldMemory::open(dir.path(), &log).await;
        memory
            .keep(vec![fold("a", 1, mark), Folded { digest: Digest::of(b"old"), ..fold("a", 1, mark) }])
            .await;
        let needed = HashSet::from([Digest::of(b"new")]);
        for collection in [Collection::DryRun, Collection::Remove] {
            assert_eq!(memory.collect(&needed, collection).await.unwrap().items, 1);
        }
        assert_eq!(memory.collect(&needed, Collection::DryRun).await.unwrap(), Garbage::default());
        assert_eq!(memory.recall(Digest::of(b"new"), vec![stream("a")]).await.len(), 1);
    }
}
