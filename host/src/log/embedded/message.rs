//! The messages of a stream that is copied. Every copy applies them in their order and by the same rules, so
//! all copies keep the same appends and leave out the same ones.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::copy::{self, OutOfOrder, Sequence};
use super::meta;
use super::writer::{Pass, Refused, outcome};
use crate::log::{Append, AppendError, Appended, Outcome};
use crate::model::StreamId;

/// The messages for which an append may be on its way. One that was begun earlier is refused, so a fence has
/// done its work by then and is forgotten.
const MAX_DELAY: u64 = 1_000_000;

const FENCES: &str = "
    CREATE TABLE IF NOT EXISTS fences (
        stream TEXT PRIMARY KEY, process TEXT NOT NULL, sequence INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID";

/// A message of the stream.
pub(crate) struct CopiedMessage {
    /// The message in front of it, or of the first part if it is the last part of a batch.
    pub(crate) after: Sequence,
    /// The place of the message.
    pub(crate) last: Sequence,
    /// The process that has published it. `None`: an older version of Kontor.
    pub(crate) process: Option<Uuid>,
    pub(crate) units: Vec<Unit>,
}

/// Appends that are written together or not at all.
pub(crate) struct Unit {
    pub(crate) appends: Vec<Append>,
    /// The last message in the copy of the publisher when the unit was begun.
    pub(crate) begun: Sequence,
    /// True if later units of other processes that were begun before are refused.
    pub(crate) fence: bool,
    /// The number of its chain in the message: it is refused if an earlier unit of the chain was.
    pub(crate) chain: u32,
    /// Another chain in the message, on which it builds in the same way.
    pub(crate) stands_on: Option<u32>,
}

impl Unit {
    /// Returns a unit that builds on nothing.
    pub(crate) fn of(appends: Vec<Append>) -> Self {
        Self { appends, begun: Sequence::MAX, fence: false, chain: 0, stands_on: None }
    }
}

/// The last fence of each stream. Each is in the database too.
#[derive(Default)]
pub(super) struct Fences(HashMap<StreamId, Fence>);

struct Fence {
    process: String,
    sequence: Sequence,
}

impl Fences {
    /// Reads the fences of a copy, which needs a table for them.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        if !connection.table_exists(None, copy::TABLE)? {
            return Ok(Self::default());
        }
        connection.execute_batch(FENCES)?;
        let mut statement = connection.prepare("SELECT stream, process, sequence FROM fences")?;
        let mut rows = statement.query([])?;
        let mut fences = HashMap::new();
        while let Some(row) = rows.next()? {
            // Err: impossible, because only names of streams are written.
            if let Ok(stream) = StreamId::parse(row.get_ref(0)?.as_str()?) {
                fences.insert(stream, Fence { process: row.get(1)?, sequence: row.get(2)? });
            }
        }
        Ok(Self(fences))
    }

    /// Returns whether another process has fenced a stream behind a message.
    fn refuses(&self, stream: &StreamId, begun: Sequence, process: &str) -> bool {
        self.0.get(stream).is_some_and(|fence| fence.sequence > begun && fence.process != process)
    }

    /// Sets the fence of a stream, and forgets those that have done their work.
    fn set(&mut self, connection: &Connection, stream: &StreamId, fence: Fence) -> rusqlite::Result<()> {
        let done = fence.sequence.before(MAX_DELAY as usize);
        connection.execute("DELETE FROM fences WHERE sequence < ?1", [done])?;
        self.0.retain(|_, fence| fence.sequence >= done);
        connection.execute(
            "INSERT OR REPLACE INTO fences VALUES (?1, ?2, ?3)",
            params![stream.as_str(), fence.process, fence.sequence],
        )?;
        self.0.insert(stream.clone(), fence);
        Ok(())
    }
}

impl Pass<'_> {
    /// Writes the units of a message that fit. Returns the outcome of each.
    pub(super) fn add_message(&mut self, message: &CopiedMessage) -> Result<Vec<Outcome>, Refused> {
        let CopiedMessage { after, last, process, units } = message;
        if *after != self.copied {
            let gap = OutOfOrder { copied: self.copied, wanted: after.next() };
            return Err(Refused::Batch(AppendError::Failed(Arc::new(gap))));
        }
        let process = process.map(|process| process.to_string()).unwrap_or_default();
        let (mut outcomes, mut refused) = (Vec::with_capacity(units.len()), HashSet::new());
        for unit in units {
            let outcome = outcome(self.add_unit(unit, (*last, &process), &refused))?;
            if outcome.is_err() {
                refused.insert(unit.chain);
            }
            outcomes.push(outcome.map(|()| Appended { position: self.end.position }));
        }
        self.copied = *last;
        Ok(outcomes)
    }

    fn add_unit(
        &mut self,
        unit: &Unit,
        (sequence, process): (Sequence, &str),
        refused: &HashSet<u32>,
    ) -> Result<(), Refused> {
        let Unit { appends, begun, fence, chain, stands_on } = unit;
        if refused.contains(chain) {
            return Err(Refused::Batch(AppendError::Discarded));
        }
        if stands_on.is_some_and(|other| refused.contains(&other)) {
            return Err(Refused::Batch(AppendError::Unfounded));
        }
        let too_late = sequence.distance_from(*begun) > MAX_DELAY;
        let fenced = |append: &&Append| {
            append.writes() && (too_late || self.fences.refuses(&append.stream, *begun, process))
        };
        if let Some(append) = appends.iter().find(fenced) {
            return Err(Refused::Batch(AppendError::Fenced { stream: append.stream.clone() }));
        }
        let metas = meta::write_all(appends);
        let metas = metas.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.add_batch(appends, &metas)?;
        if *fence {
            for append in appends {
                let fence = Fence { process: process.to_owned(), sequence };
                self.fences.set(self.transaction, &append.stream, fence)?;
            }
        }
        Ok(())
    }
}
