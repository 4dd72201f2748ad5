//! The only thread that writes. It commits all waiting appends in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use quick_cache::unsync::Cache;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use super::answers::{self, Answered};
use super::commit_watch::CommitWatch;
use super::copy::{self, Sequence};
use super::known::KnownStreams;
use super::message::{CopiedMessage, Fences};
use super::schema::LAYOUT;
use super::tail::Tail;
use super::versions::Versions;
use crate::error::Chain;
use crate::log::failed_chains::FailedChains;
use crate::log::{Append, AppendError, Appended, Committed, Footing, Outcome};
use crate::model::{LogMark, NewEvent, Position, Recorded, StreamId, Version};

#[cfg(test)]
mod tests;

/// The largest number of appends committed together. More would only make the first of them wait longer: by
/// then each bears little of the cost of the sync.
const MAX_GROUP: usize = 1_024;

/// The pause between two probes while commits fail: the longest time until the host notices that they succeed
/// again.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// The number of streams whose heads are cached, so that an append need not query them: about 10 MB.
const MAX_HEADS: usize = 65_536;

const FIND_STREAM: &str = "
    SELECT id, (SELECT coalesce(max(version), 0) FROM events WHERE stream = id) FROM streams WHERE name = ?1";

const ADD_STREAM: &str = "INSERT INTO streams (name) VALUES (?1)";

/// Adds nothing if the command is already recorded. Any other conflict is an error.
const ADD_EVENT: &str = "
    INSERT INTO events (position, stream, version, command_index, name, payload, command_id, meta, hash)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    ON CONFLICT (stream, command_id) WHERE command_id IS NOT NULL DO NOTHING";

/// Something to append.
pub(super) enum Request {
    /// A batch, all of it or nothing.
    Batch {
        footing: Footing,
        batch: Vec<Append>,
        /// The metadata of each append as it is stored. Many threads encode it, and only this one writes.
        metas: Vec<String>,
        committed: Option<Committed>,
        reply: oneshot::Sender<Outcome>,
    },
    /// A message of the stream that is copied.
    Message { message: CopiedMessage, reply: oneshot::Sender<Result<Vec<Outcome>, AppendError>> },
}

/// The result of a request.
enum Done {
    Batch(Outcome),
    Message(Result<Vec<Outcome>, AppendError>),
}

/// The state of the thread.
pub(super) struct Writer {
    connection: Connection,
    heads: Cache<StreamId, Head>,
    failed: FailedChains,
    /// The fences of a copy. `None`: they must be read, because a transaction failed that may have set some.
    fences: Option<Fences>,
    /// The newest events. Receives them after the commit and before the position moves.
    tail: Arc<Tail>,
    answered: Arc<Answered>,
    known: Arc<KnownStreams>,
    signals: Signals,
}

/// The channels that others follow.
pub(super) struct Signals {
    /// The position of the last event on disk. Moves after the commit and before the replies.
    pub(super) position: watch::Sender<Position>,
    /// The last copied message, if the log is a copy. Moves with the position.
    pub(super) copied: watch::Sender<Sequence>,
    /// Those of a copy.
    pub(super) versions: Option<Arc<Versions>>,
    /// True if the last commit was written.
    pub(super) writable: Arc<AtomicBool>,
    pub(super) commits: Arc<CommitWatch>,
    /// Signals each commit.
    pub(super) checkpointer: SyncSender<()>,
}

/// The end of a stream, on disk or in the current transaction.
#[derive(Clone, Copy)]
struct Head {
    /// The row id of the stream.
    row: i64,
    version: Version,
}

/// The result of a transaction.
struct Written {
    /// The position of the last event in the log.
    position: Position,
    /// The last message that is copied, if the log is a copy.
    copied: Sequence,
    /// The events that were written.
    events: Vec<Recorded>,
    /// The result of each request, in the order of the group.
    results: Vec<Done>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        tail: Arc<Tail>,
        (answered, known): (Arc<Answered>, Arc<KnownStreams>),
        signals: Signals,
    ) -> Self {
        let (heads, failed, fences) = (Cache::new(MAX_HEADS), FailedChains::default(), None);
        Self { connection, heads, failed, fences, tail, answered, known, signals }
    }

    /// Writes requests until the channel is closed and empty.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while let Some(first) = self.next(requests) {
            group.push(first);
            group.extend(requests.try_iter().take(MAX_GROUP - 1));
            let commits = self.signals.commits.clone();
            match commits.time(|| self.write(&group)) {
                Ok(written) => self.acknowledge(&mut group, written),
                Err(error) => self.give_up(&mut group, error),
            }
        }
    }

    /// Waits for the next request. Meanwhile finds out if commits succeed again, after one has failed: while
    /// they fail, the host lets no commands in that would find it out. `None`: the channel is closed.
    fn next(&mut self, requests: &Receiver<Request>) -> Option<Request> {
        while !self.signals.writable.load(Ordering::Acquire) {
            match requests.recv_timeout(PROBE_INTERVAL) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => match self.probe() {
                    Ok(()) => self.report(true),
                    Err(error) => tracing::debug!(error = %Chain(&error), "the log cannot be written yet"),
                },
            }
        }
        requests.recv().ok()
    }

    /// Commits a transaction that changes nothing and writes a page all the same.
    fn probe(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.commit()
    }

    /// Publishes if commits succeed, and logs a change.
    fn report(&self, writable: bool) {
        if self.signals.writable.swap(writable, Ordering::AcqRel) != writable {
            match writable {
                true => tracing::info!("the event log can be written again; commands are accepted"),
                false => tracing::error!("the event log cannot be written; commands are refused"),
            }
        }
    }

    /// Writes a group in one transaction.
    fn write(&mut self, group: &[Request]) -> rusqlite::Result<Written> {
        let fences = match &mut self.fences {
            Some(fences) => fences,
            None => self.fences.insert(Fences::load(&self.connection)?),
        };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let copied = *self.signals.copied.borrow();
        let indexes = (&*self.answered, &*self.known);
        let memory = (&mut self.heads, &mut self.failed, fences);
        let pass = Pass::begin(&transaction, indexes, memory, copied)?;
        let written = pass.write(group)?;
        transaction.commit()?;
        Ok(written)
    }

    /// Calls the callers of a committed group back, publishes its events, moves the position and replies. In
    /// this order, nobody sees an event before what the callers derive from it.
    fn acknowledge(&self, group: &mut Vec<Request>, written: Written) {
        for (request, result) in group.iter_mut().zip(&written.results) {
            if let (Request::Batch { committed, .. }, Done::Batch(Ok(_))) = (request, result)
                && let Some(committed) = committed.take()
            {
                committed();
            }
        }
        if let Some(versions) = &self.signals.versions {
            versions.committed(&written.events);
        }
        self.tail.extend(written.events);
        publish(&self.signals.position, written.position);
        publish(&self.signals.copied, written.copied);
        self.report(true);
        // Err: the channel already has a signal.
        let _ = self.signals.checkpointer.try_send(());
        for (request, result) in group.drain(..).zip(written.results) {
            request.reply(result);
        }
    }

    /// Replies to the callers of a group whose transaction failed.
    fn give_up(&mut self, group: &mut Vec<Request>, error: rusqlite::Error) {
        tracing::error!(error = %Chain(&error), "cannot write the event log; all waiting appends fail");
        // They are those of the transaction that was rolled back.
        self.heads.clear();
        self.fences = None;
        self.report(false);
        let error = AppendError::Failed(Arc::new(error));
        for request in group.drain(..) {
            // Err: the caller has stopped waiting.
            match request {
                Request::Batch { footing, reply, .. } => {
                    self.failed.insert(footing.chain);
                    drop(reply.send(Err(error.clone())));
                }
                Request::Message { reply, .. } => drop(reply.send(Err(error.clone()))),
            }
        }
    }
}

impl Request {
    fn reply(self, result: Done) {
        // Err: the caller has stopped waiting.
        match (self, result) {
            (Self::Batch { reply, .. }, Done::Batch(outcome)) => drop(reply.send(outcome)),
            (Self::Message { reply, .. }, Done::Message(outcomes)) => drop(reply.send(outcomes)),
            // A request has a result of its kind.
            (Self::Batch { .. }, Done::Message(_)) | (Self::Message { .. }, Done::Batch(_)) => {}
        }
    }
}

/// The reasons why a batch was not written.
pub(super) enum Refused {
    /// The batch conflicts with the log. Other batches are not affected.
    Batch(AppendError),
    /// The database failed, so the whole transaction does.
    Database(rusqlite::Error),
}

/// Publishes a value that may be the same as before, and then wakes nobody.
fn publish<T: PartialEq>(signal: &watch::Sender<T>, value: T) {
    signal.send_if_modified(|known| {
        let moved = *known != value;
        *known = value;
        moved
    });
}

/// Returns the outcome of something that does not fail the whole transaction.
pub(super) fn outcome<T>(added: Result<T, Refused>) -> rusqlite::Result<Result<T, AppendError>> {
    match added {
        Ok(added) => Ok(Ok(added)),
        Err(Refused::Batch(error)) => Ok(Err(error)),
        Err(Refused::Database(error)) => Err(error),
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// The current transaction.
pub(super) struct Pass<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    answered: &'a Answered,
    known: &'a KnownStreams,
    heads: &'a mut Cache<StreamId, Head>,
    failed: &'a mut FailedChains,
    pub(super) fences: &'a mut Fences,
    find_stream: CachedStatement<'a>,
    add_stream: CachedStatement<'a>,
    add_event: CachedStatement<'a>,
    /// The last event written.
    pub(super) end: LogMark,
    /// The events written, oldest first.
    events: Vec<Recorded>,
    /// The last message that is copied.
    pub(super) copied: Sequence,
}

impl<'a> Pass<'a> {
    fn begin(
        transaction: &'a Transaction<'_>,
        (answered, known): (&'a Answered, &'a KnownStreams),
        (heads, failed, fences): (&'a mut Cache<StreamId, Head>, &'a mut FailedChains, &'a mut Fences),
        copied: Sequence,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            answered,
            known,
            heads,
            failed,
            fences,
            copied,
            find_stream: transaction.prepare_cached(FIND_STREAM)?,
            add_stream: transaction.prepare_cached(ADD_STREAM)?,
            add_event: transaction.prepare_cached(ADD_EVENT)?,
            end: super::last_mark(transaction)?,
            events: Vec::new(),
            transaction,
        })
    }

    fn write(mut self, group: &[Request]) -> rusqlite::Result<Written> {
        let before = self.copied;
        let mut results = Vec::with_capacity(group.len());
        for request in group {
            results.push(match request {
                Request::Batch { footing, batch, metas, .. } => {
                    let added = self.add_on(*footing, batch, metas);
                    if let Err(Refused::Batch(_)) = added {
                        self.failed.insert(footing.chain);
                    }
                    Done::Batch(outcome(added)?.map(|()| Appended { position: self.end.position }))
                }
                Request::Message { message, .. } => Done::Message(outcome(self.add_message(message))?),
            });
        }
        if self.copied != before {
            copy::remember(self.transaction, self.copied)?;
        }
        let Self { end, copied, events, .. } = self;
        Ok(Written { position: end.position, copied, events, results })
    }

    /// Writes a batch, unless it builds on one that has failed.
    fn add_on(&mut self, footing: Footing, batch: &[Append], metas: &[String]) -> Result<(), Refused> {
        self.failed.check(footing).map_err(Refused::Batch)?;
        self.add_batch(batch, metas)
    }

    /// Writes a batch completely or not at all. An append is refused before it has written anything, so only
    /// a batch of several appends needs a savepoint. `metas`: the metadata of each
    /// append as it is stored.
    pub(super) fn add_batch(&mut self, batch: &[Append], metas: &[String]) -> Result<(), Refused> {
        if let ([append], [meta]) = (batch, metas) {
            return self.add(append, meta);
        }
        let (end, events) = (self.end, self.events.len());
        self.transaction.execute_batch("SAVEPOINT batch")?;
        let added = batch.iter().zip(metas).try_for_each(|(append, meta)| self.add(append, meta));
        if let Err(Refused::Batch(_)) = added {
            self.transaction.execute_batch("ROLLBACK TO batch")?;
            self.end = end;
            self.events.truncate(events);
            for append in batch {
                self.heads.remove(&append.stream);
            }
        }
        self.transaction.execute_batch("RELEASE batch")?;
        added
    }

    /// Writes one append, unless it conflicts with the log.
    fn add(&mut self, append: &Append, encoded: &str) -> Result<(), Refused> {
        let Append { stream, expected, events, meta, answer } = append;
        let head = self.head(stream)?;
        let actual = head.map_or(Version::START, |head| head.version);
        if actual != *expected {
            let stream = stream.clone();
            return Err(Refused::Batch(AppendError::Conflict { stream, expected: *expected, actual }));
        }
        if let Some(answer) = answer {
            answers::add(self.transaction, self.answered, stream, meta, answer)?;
        }
        if events.is_empty() {
            return Ok(());
        }
        let row = match head {
            Some(head) => head.row,
            None => {
                self.known.add(stream);
                self.add_stream.insert([stream.as_str()])?
            }
        };
        let command = meta.command_id.as_str();
        let hash = append.hash(self.end.hash, self.end.position.next());
        let (mut position, mut version) = (self.end.position, actual);
        for (index, event) in (0..).zip(events) {
            (position, version) = (position.next(), version.next());
            let first = index == 0;
            let added = self.add_event.execute(params![
                position,
                row,
                version,
                index,
                event.name.as_str(),
                event.payload.as_str(),
                first.then_some(command),
                first.then_some(encoded),
                first.then_some(hash),
            ])?;
            if added == 0 {
                let (stream, command) = (stream.clone(), meta.command_id.clone());
                return Err(Refused::Batch(AppendError::Duplicate { stream, command }));
            }
            let (stream, meta) = (stream.clone(), meta.clone());
            let NewEvent { name, payload } = event.clone();
            self.events.push(Recorded { position, stream, version, index, name, payload, meta, hash });
        }
        self.end = LogMark { position, hash };
        self.heads.insert(stream.clone(), Head { row, version });
        Ok(())
    }

    /// Returns the end of a stream. `None`: it has no events.
    fn head(&mut self, stream: &StreamId) -> rusqlite::Result<Option<Head>> {
        if let Some(head) = self.heads.get(stream) {
            return Ok(Some(*head));
        }
        self.find_stream
            .query_row([stream.as_str()], |row| Ok(Head { row: row.get(0)?, version: row.get(1)? }))
            .optional()
    }
}
