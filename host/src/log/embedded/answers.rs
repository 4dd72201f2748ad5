//! The answers to commands that recorded no events, for clients that send a command again under its key. They
//! are no part of the log: the oldest are dropped, and an export has none of them.

use rusqlite::{Connection, OptionalExtension as _};

use crate::log::readers::Unreadable;
use crate::log::{ANSWERS_KEPT_FOR, KeptAnswer};
use crate::model::{CommandId, Json, Meta, StreamId};
use crate::recent::Recent;

/// The bytes of answers that are kept, give or take one answer.
const MAX_BYTES: i64 = 64 << 20;
/// The bytes that an answer takes beside its text, about.
const OVERHEAD: i64 = 200;

/// `total`: the bytes of all answers up to this one, those included that were dropped. It grows with each
/// answer, so the oldest have the lowest.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS answers (
        total INTEGER PRIMARY KEY,
        command_id TEXT NOT NULL,
        stream TEXT NOT NULL,
        fingerprint INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        answer TEXT NOT NULL,
        UNIQUE (command_id, stream)
    ) STRICT;";

const TOTAL: &str = "SELECT coalesce(max(total), 0) FROM answers";

/// Drops those that are too old, and those that are too many. The first that is young enough ends the search
/// for old ones.
const DROP: &str = "
    DELETE FROM answers WHERE total <= ?1 OR total < coalesce(
        (SELECT total FROM answers WHERE time_ms > ?2 ORDER BY total LIMIT 1), ?1)";

const ADD: &str = "
    INSERT INTO answers (total, command_id, stream, fingerprint, time_ms, answer)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (command_id, stream) DO NOTHING";

const FIND: &str = "
    SELECT fingerprint, time_ms, answer FROM answers WHERE command_id = ?1 AND stream = ?2";

/// The commands that have an answer, and some that had one: most commands have none, and need no look at the
/// file.
pub(super) struct Answered(Recent);

impl Answered {
    /// Reads them from the file.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        // The file never has more.
        let answered = Self(Recent::new((MAX_BYTES / OVERHEAD) as usize + 1));
        let mut statement = connection.prepare("SELECT command_id, stream FROM answers")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            answered.0.add((row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?));
        }
        Ok(answered)
    }

    fn add(&self, stream: &StreamId, command: &CommandId) {
        self.0.add((command.as_str(), stream.as_str()));
    }

    /// Returns false if no answer is kept for a command of a stream.
    pub(super) fn may_have(&self, stream: &StreamId, command: &CommandId) -> bool {
        self.0.has((command.as_str(), stream.as_str()))
    }
}

/// Creates the table if the file has none. It is no part of the layout: a version of Kontor that does not
/// know it leaves it alone.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)
}

/// Keeps the answer to a command of a stream, unless one is kept already, and drops old ones.
pub(super) fn add(
    connection: &Connection,
    answered: &Answered,
    stream: &StreamId,
    meta: &Meta,
    answer: &Json,
) -> rusqlite::Result<()> {
    let answer = answer.as_str();
    let total: i64 = connection.prepare_cached(TOTAL)?.query_row([], |row| row.get(0))?;
    let total = total + OVERHEAD + answer.len() as i64;
    let oldest = meta.time_ms.saturating_sub(ANSWERS_KEPT_FOR.as_millis() as u64);
    connection.prepare_cached(DROP)?.execute((total - MAX_BYTES, oldest as i64))?;
    let fingerprint = meta.fingerprint.cast_signed();
    let row = (total, meta.command_id.as_str(), stream.as_str(), fingerprint, meta.time_ms as i64, answer);
    connection.prepare_cached(ADD)?.execute(row)?;
    // Before the commit, so that nobody who sees the answer misses it here.
    answered.add(stream, &meta.command_id);
    Ok(())
}

/// Returns the answer that is kept for a command of a stream.
pub(super) fn find(
    connection: &Connection,
    stream: &StreamId,
    command: &CommandId,
) -> Result<Option<KeptAnswer>, Unreadable> {
    let mut statement = connection.prepare_cached(FIND)?;
    let row = statement.query_row((command.as_str(), stream.as_str()), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
    });
    let Some((fingerprint, time_ms, answer)) = row.optional()? else { return Ok(None) };
    let answer = Json::parse(answer).map_err(|source| Unreadable::Damaged {
        what: format!("the answer to the command {command}"),
        source: source.into(),
    })?;
    let (fingerprint, time_ms) = (fingerprint.cast_unsigned(), time_ms.cast_unsigned());
    Ok(Some(KeptAnswer { fingerprint, time_ms, answer }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn keep(connection: &Connection, key: &str, time_ms: u64, answer: &str) {
        let meta =
            Meta { command_id: CommandId::from_key(key), fingerprint: u64::MAX, time_ms, ..Meta::default() };
        let answered = Answered::load(connection).unwrap();
        add(connection, &answered, &stream(), &meta, &Json::parse(answer.to_owned()).unwrap()).unwrap();
        assert!(answered.may_have(&stream(), &meta.command_id));
    }

    fn stream() -> StreamId {
        StreamId::new("thing", "a").unwrap()
    }

    fn kept(connection: &Connection, key: &str) -> Option<String> {
        let found = find(connection, &stream(), &CommandId::from_key(key)).unwrap();
        found.map(|kept| kept.answer.as_str().to_owned())
    }

    #[test]
    fn the_first_answer_is_kept_for_a_day() {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection).unwrap();
        create(&connection).unwrap();
        keep(&connection, "a", HOUR_MS, "1");
        keep(&connection, "a", 2 * HOUR_MS, "2");
        keep(&connection, "b", 3 * HOUR_MS, "3");
        assert_eq!((kept(&connection, "a"), kept(&connection, "c")), (Some("1".to_owned()), None));
        keep(&connection, "c", 26 * HOUR_MS, "4");
        assert_eq!((kept(&connection, "a"), kept(&connection, "b").as_deref()), (None, Some("3")));
        let found = find(&connection, &stream(), &CommandId::from_key("c")).unwrap().unwrap();
        assert_eq!((found.fingerprint, found.time_ms), (u64::MAX, 26 * HOUR_MS));
    }

    #[test]
    fn a_command_without_an_answer_is_known_after_a_restart_too() {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection).unwrap();
        keep(&connection, "a", HOUR_MS, "1");
        let answered = Answered::load(&connection).unwrap();
        let of = |stream: &str, key| {
            answered.may_have(&StreamId::new("thing", stream).unwrap(), &CommandId::from_key(key))
        };
        assert_eq!([of("a", "a"), of("b", "a"), of("a", "b")], [true, false, false]);
    }

    #[test]
    fn answers_have_a_largest_size_together() {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection).unwrap();
        let large = format!("\"{}\"", "x".repeat(20 << 20));
        for (key, time_ms) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)] {
            keep(&connection, key, time_ms, &large);
        }
        let there = ["a", "b", "c", "d", "e"].map(|key| kept(&connection, key).is_some());
        assert_eq!(there, [false, true, true, true, true]);
    }
}
