//! Reads events from rows. A damaged file gives an error, never a panic or a wrong event.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, LazyLock};

use rusqlite::{Connection, Params, Row};

use super::meta;
use super::schema::{ACTS, names_of_acts};

use crate::log::readers::Unreadable;
use crate::log::{MAX_PAGE, MAX_PAGE_BYTES, bytes};
use crate::model::{AUDITED, CommandId, CommitHash, Json, Meta, Position, Recorded, StreamId, Version};

/// SQLite's largest integer. Larger bounds of callers are lowered to it.
const LAST: u64 = i64::MAX as u64;

/// Selects the columns that [`Decoder`] reads. CROSS JOIN fixes the order of the loops: the events of a known
/// stream, or the stream of each event, never a search through all streams.
macro_rules! select {
    ($from:literal) => {
        concat!(
            "SELECT events.position, events.stream, events.version, events.command_index, events.name, \
             events.payload, events.command_id, events.meta, events.hash, streams.name FROM ",
            $from
        )
    };
}

const STREAM: &str = select!(
    "streams CROSS JOIN events ON events.stream = streams.id
    WHERE streams.name = ?1 AND events.version > ?2 ORDER BY events.version LIMIT ?3"
);

const ALL: &str = select!(
    "events CROSS JOIN streams ON streams.id = events.stream
    WHERE events.position > ?1 ORDER BY events.position LIMIT ?2"
);

/// Only the events in the index of acts, and of them those in streams of the host.
static ACTS_AFTER: LazyLock<String> = LazyLock::new(|| {
    let kinds: BTreeSet<_> = AUDITED.iter().map(|(kind, ..)| format!("'{kind}'")).collect();
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
    let select = select!("events INDEXED BY");
    format!(
        "{select} {ACTS} CROSS JOIN streams ON streams.id = events.stream
        WHERE ({}) AND events.position > ?1
            AND substr(streams.name, 1, instr(streams.name, '/') - 1) IN ({kinds})
        ORDER BY events.position LIMIT ?2",
        names_of_acts("events.name")
    )
});

/// From the first event of the command to the end of the stream. The caller stops where the next command
/// begins.
const COMMAND: &str = select!(
    "streams CROSS JOIN events ON events.stream = streams.id
    WHERE streams.name = ?1 AND events.version >=
        (SELECT version FROM events WHERE stream = streams.id AND command_id = ?2)
    ORDER BY events.version"
);

/// The first event of a command, which holds the metadata and the hash.
const FIRST: &str = "SELECT command_id, meta, hash FROM events WHERE stream = ?1 AND version = ?2";

const VERSION: &str = "
    SELECT coalesce(max(version), 0) FROM events WHERE stream = (SELECT id FROM streams WHERE name = ?1)";

/// All names that begin with `<aggregate>/`: `0` is the character after `/`.
const STREAMS: &str = "
    SELECT name, (SELECT coalesce(max(version), 0) FROM events WHERE stream = streams.id) FROM streams
    WHERE name > ?1 AND name < ?2 || '0' ORDER BY name LIMIT ?3";

const COUNT_STREAMS: &str = "SELECT count(*) FROM streams WHERE name > ?1 || '/' AND name < ?1 || '0'";

/// Returns up to `limit` streams of a kind of aggregate, ordered by name, starting behind `after`, each with
/// its version.
pub(super) fn streams(
    connection: &Connection,
    aggregate: &str,
    after: Option<&StreamId>,
    limit: usize,
) -> Result<Vec<(StreamId, Version)>, Unreadable> {
    let after = after.map_or_else(|| format!("{aggregate}/"), |after| after.as_str().to_owned());
    let mut statement = connection.prepare_cached(STREAMS)?;
    let found = statement.query_map((after, aggregate, limit), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Version>(1)?))
    })?;
    let parse = |(name, version): (String, Version)| match StreamId::parse(&name) {
        Ok(stream) => Ok((stream, version)),
        Err(source) => {
            Err(Unreadable::Damaged { what: format!("the stream {name:?}"), source: source.into() })
        }
    };
    found.map(|found| parse(found?)).collect()
}

/// Returns the number of streams of a kind of aggregate.
pub(super) fn count_streams(connection: &Connection, aggregate: &str) -> Result<u64, Unreadable> {
    Ok(connection.prepare_cached(COUNT_STREAMS)?.query_row([aggregate], |row| row.get(0))?)
}

/// Returns the version of a stream: [`Version::START`] if it has no events.
pub(super) fn version(connection: &Connection, stream: &StreamId) -> Result<Version, Unreadable> {
    Ok(connection.prepare_cached(VERSION)?.query_row([stream.as_str()], |row| row.get(0))?)
}

/// Returns up to `limit` events of a stream, oldest first.
pub(super) fn stream(
    connection: &Connection,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<Recorded>, Unreadable> {
    select(connection, STREAM, (stream.as_str(), after.get().min(LAST), limit), within_page())
}

/// Returns the first page of each of some streams, for the events above a version. Ends early after
/// [`MAX_PAGE_BYTES`], with the page of at least one.
pub(super) fn streams_after(
    connection: &Connection,
    streams: &[(StreamId, Version)],
) -> Result<Vec<Vec<Recorded>>, Unreadable> {
    let (mut pages, mut read) = (Vec::with_capacity(streams.len()), 0);
    for (name, after) in streams {
        let page = stream(connection, name, *after, MAX_PAGE)?;
        read += bytes(&page);
        pages.push(page);
        if read >= MAX_PAGE_BYTES {
            break;
        }
    }
    Ok(pages)
}

/// Returns up to `limit` events of all streams, oldest first.
pub(super) fn all(
    connection: &Connection,
    after: Position,
    limit: usize,
) -> Result<Vec<Recorded>, Unreadable> {
    select(connection, ALL, (after.get().min(LAST), limit), within_page())
}

/// Returns up to `limit` events that record acts of operators, oldest first.
pub(super) fn acts(
    connection: &Connection,
    after: Position,
    limit: usize,
) -> Result<Vec<Recorded>, Unreadable> {
    select(connection, &ACTS_AFTER, (after.get().min(LAST), limit), within_page())
}

/// Returns the events of a command in a stream.
pub(super) fn command(
    connection: &Connection,
    stream: &StreamId,
    command: &CommandId,
) -> Result<Vec<Recorded>, Unreadable> {
    select(connection, COMMAND, (stream.as_str(), command.as_str()), |event| {
        event.meta.command_id == *command
    })
}

/// Returns a filter that ends a page with the event that exceeds [`MAX_PAGE_BYTES`].
pub(super) fn within_page() -> impl FnMut(&Recorded) -> bool {
    let mut bytes = 0;
    move |event| {
        let fits = bytes < MAX_PAGE_BYTES;
        bytes += event.payload.as_str().len();
        fits
    }
}

/// Returns the rows of a query as events, up to the first that is not wanted.
fn select(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut wanted: impl FnMut(&Recorded) -> bool,
) -> Result<Vec<Recorded>, Unreadable> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut decoder = Decoder { connection, stream: None, command: None };
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let event = decoder.decode(row).map_err(|source| Unreadable::Damaged {
            what: format!("the event at position {position}"),
            source,
        })?;
        if !wanted(&event) {
            break;
        }
        events.push(event);
    }
    Ok(events)
}

/// Reads events one after another, and keeps the stream and the metadata that the next one is likely to
/// share.
struct Decoder<'c> {
    connection: &'c Connection,
    stream: Option<(i64, StreamId)>,
    command: Option<(CommandKey, Shared)>,
}

/// The data that all events of a command share.
#[derive(Clone)]
struct Shared {
    meta: Arc<Meta>,
    hash: CommitHash,
}

/// The place of the first event of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
struct CommandKey {
    /// The row id of the stream.
    stream: i64,
    version: Version,
}

type Decoded<T> = Result<T, Box<dyn Error + Send + Sync>>;

impl Decoder<'_> {
    fn decode(&mut self, row: &Row<'_>) -> Decoded<Recorded> {
        let stream_row: i64 = row.get(1)?;
        let version: Version = row.get(2)?;
        let index: u32 = row.get(3)?;
        let first = version
            .get()
            .checked_sub(u64::from(index))
            .ok_or("its index in its command is greater than its version")?;
        let key = CommandKey { stream: stream_row, version: Version::new(first) };
        if index == 0 {
            self.command = Some((key, Shared::read(row, 6)?));
        }
        let Shared { meta, hash } = self.shared(key)?;
        Ok(Recorded {
            position: row.get(0)?,
            stream: self.stream(stream_row, row)?,
            version,
            index,
            name: row.get_ref(4)?.as_str()?.into(),
            payload: Json::parse(row.get(5)?)?,
            meta,
            hash,
        })
    }

    fn stream(&mut self, stream_row: i64, row: &Row<'_>) -> Decoded<StreamId> {
        match &self.stream {
            Some((known, stream)) if *known == stream_row => Ok(stream.clone()),
            _ => {
                let stream = StreamId::parse(row.get_ref(9)?.as_str()?)?;
                self.stream = Some((stream_row, stream.clone()));
                Ok(stream)
            }
        }
    }

    /// Returns the shared data of the command that begins at `key`. Queries it only if the read began within
    /// the command.
    fn shared(&mut self, key: CommandKey) -> Decoded<Shared> {
        match &self.command {
            Some((known, shared)) if *known == key => Ok(shared.clone()),
            _ => {
                let mut statement = self.connection.prepare_cached(FIRST)?;
                let mut rows = statement.query((key.stream, key.version))?;
                let first = rows.next()?.ok_or("the first event of its command is missing")?;
                let shared = Shared::read(first, 0)?;
                self.command = Some((key, shared.clone()));
                Ok(shared)
            }
        }
    }
}

impl Shared {
    /// Reads the columns `command_id`, `meta` and `hash`, the first of which is `column`.
    fn read(row: &Row<'_>, column: usize) -> Decoded<Self> {
        let command_id = CommandId::from(row.get::<_, String>(column)?);
        let meta = meta::read(command_id, row.get_ref(column + 1)?.as_str()?)?;
        Ok(Self { meta: meta.into(), hash: row.get(column + 2)? })
    }
}
