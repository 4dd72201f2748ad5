//! The one thread that writes: everything that waits goes to disk in one transaction.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use quick_cache::unsync::Cache;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use super::meta;
use crate::log::{Append, AppendError, Appended};
use crate::model::{Position, StreamId, Version};

/// Appends committed together. More would only make the first of them wait longer: the cost of the sync is spread by then.
const MAX_GROUP: usize = 1_024;

/// Streams whose heads are remembered, so that an append need not look them up: about 10 MB.
const MAX_HEADS: usize = 65_536;

const FIND_STREAM: &str = "
    SELECT id, (SELECT coalesce(max(version), 0) FROM events WHERE stream = id) FROM streams WHERE name = ?1";

const ADD_STREAM: &str = "INSERT INTO streams (name) VALUES (?1)";

/// Adds nothing if the command is already there; anything else that is in the way is an error.
const ADD_EVENT: &str = "
    INSERT INTO events (position, stream, version, command_index, name, payload, command_id, meta)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (stream, command_id) WHERE command_id IS NOT NULL DO NOTHING";

pub(super) struct Request {
    pub(super) batch: Vec<Append>,
    pub(super) reply: oneshot::Sender<Result<Appended, AppendError>>,
}

pub(super) struct Writer {
    connection: Connection,
    heads: Cache<StreamId, Head>,
    /// Where what is on disk ends. Moves after the commit and before the replies.
    position: watch::Sender<Position>,
    /// Told after every commit.
    checkpointer: SyncSender<()>,
}

/// Where a stream ends, on disk or in the transaction under way.
#[derive(Clone, Copy)]
struct Head {
    row: i64,
    version: Version,
}

/// What one transaction did.
struct Written {
    position: Position,
    /// In the order of the group.
    fates: Vec<Result<Appended, AppendError>>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        position: watch::Sender<Position>,
        checkpointer: SyncSender<()>,
    ) -> Self {
        Self {
            connection,
            heads: Cache::new(MAX_HEADS),
            position,
            checkpointer,
        }
    }

    /// Works until nobody can send any more, and everything that was sent is done.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while let Ok(first) = requests.recv() {
            group.push(first);
            group.extend(requests.try_iter().take(MAX_GROUP - 1));
            match self.write(&group) {
                Ok(written) => self.acknowledge(group.drain(..), written),
                Err(error) => self.give_up(group.drain(..), error),
            }
        }
    }

    fn write(&mut self, group: &[Request]) -> rusqlite::Result<Written> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let written = Pass::begin(&transaction, &mut self.heads)?.write(group)?;
        transaction.commit()?;
        Ok(written)
    }

    fn acknowledge(&self, group: impl Iterator<Item = Request>, written: Written) {
        self.position.send_if_modified(|position| {
            let moved = *position != written.position;
            *position = written.position;
            moved
        });
        // A full channel has a signal in it that has not been seen yet, which serves as well.
        let _ = self.checkpointer.try_send(());
        for (request, fate) in group.zip(written.fates) {
            // Who has stopped waiting does not want to know.
            let _ = request.reply.send(fate);
        }
    }

    fn give_up(&mut self, group: impl Iterator<Item = Request>, error: rusqlite::Error) {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the event log cannot be written"
        );
        // They were those of the transaction that is no more.
        self.heads.clear();
        let error = Arc::new(error);
        for request in group {
            let _ = request.reply.send(Err(AppendError::Unavailable(error.clone())));
        }
    }
}

/// Why a batch was not written.
enum Refused {
    /// It does not fit, which concerns no other batch.
    Batch(AppendError),
    /// The database failed, and with it the transaction.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// One transaction under way.
struct Pass<'a> {
    transaction: &'a Transaction<'a>,
    heads: &'a mut Cache<StreamId, Head>,
    find_stream: CachedStatement<'a>,
    add_stream: CachedStatement<'a>,
    add_event: CachedStatement<'a>,
    /// Of the last event written.
    position: Position,
}

impl<'a> Pass<'a> {
    fn begin(
        transaction: &'a Transaction<'_>,
        heads: &'a mut Cache<StreamId, Head>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            heads,
            find_stream: transaction.prepare_cached(FIND_STREAM)?,
            add_stream: transaction.prepare_cached(ADD_STREAM)?,
            add_event: transaction.prepare_cached(ADD_EVENT)?,
            position: super::last_position(transaction)?,
            transaction,
        })
    }

    fn write(mut self, group: &[Request]) -> rusqlite::Result<Written> {
        let mut fates = Vec::with_capacity(group.len());
        for request in group {
            fates.push(match self.add_batch(&request.batch) {
                Ok(()) => Ok(Appended {
                    position: self.position,
                }),
                Err(Refused::Batch(error)) => Err(error),
                Err(Refused::Database(error)) => return Err(error),
            });
        }
        Ok(Written {
            position: self.position,
            fates,
        })
    }

    /// Writes a batch whole or not at all. An append is refused before it has written anything, so only a batch of
    /// several needs a savepoint.
    fn add_batch(&mut self, batch: &[Append]) -> Result<(), Refused> {
        if let [append] = batch {
            return self.add(append);
        }
        let position = self.position;
        self.transaction.execute_batch("SAVEPOINT batch")?;
        let added = batch.iter().try_for_each(|append| self.add(append));
        if let Err(Refused::Batch(_)) = added {
            self.transaction.execute_batch("ROLLBACK TO batch")?;
            self.position = position;
            for append in batch {
                self.heads.remove(&append.stream);
            }
        }
        self.transaction.execute_batch("RELEASE batch")?;
        added
    }

    fn add(&mut self, append: &Append) -> Result<(), Refused> {
        let Append {
            stream,
            expected,
            events,
            meta,
        } = append;
        let head = self.head(stream)?;
        let actual = head.map_or(0, |head| head.version);
        if actual != *expected {
            let stream = stream.clone();
            return Err(Refused::Batch(AppendError::Conflict {
                stream,
                expected: *expected,
                actual,
            }));
        }
        let row = match head {
            Some(head) => head.row,
            None => self.add_stream.insert([stream.as_str()])?,
        };
        let command = meta.command_id.as_str();
        let shared =
            meta::write(meta).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let mut version = actual;
        for (index, event) in events.iter().enumerate() {
            let first = index == 0;
            let added = self.add_event.execute(params![
                self.position + 1,
                row,
                version + 1,
                index,
                &*event.name,
                event.payload.as_str(),
                first.then_some(command),
                first.then_some(&shared),
            ])?;
            if added == 0 {
                let (stream, command) = (stream.clone(), meta.command_id.clone());
                return Err(Refused::Batch(AppendError::Duplicate { stream, command }));
            }
            self.position += 1;
            version += 1;
        }
        self.heads.insert(stream.clone(), Head { row, version });
        Ok(())
    }

    /// None for a stream without events.
    fn head(&mut self, stream: &StreamId) -> rusqlite::Result<Option<Head>> {
        if let Some(head) = self.heads.get(stream) {
            return Ok(Some(*head));
        }
        self.find_stream
            .query_row([stream.as_str()], |row| {
                Ok(Head {
                    row: row.get(0)?,
                    version: row.get(1)?,
                })
            })
            .optional()
    }
}
