//! The journal of one saga in the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Deps;
use super::entry::Entry;
use super::journal::{IllegalEntry, Saga, next_state};
use crate::clock::{SharedClock, deadline_after};
use crate::log::{Append, AppendError, Appending, EventLog, MAX_PAGE, ReadError};
use crate::model::{
    Actor, AppendChain, BY_SAGA, Caller, CommandId, CorrelationId, InvalidId, Meta, NewEvent, Recorded, SAGA,
    SagaId, StreamId, Version, event_of, variant_of,
};

/// The longest time for which the journal in the log may be behind the saga. Operators read the journal
/// there.
const PATIENCE: Duration = Duration::from_millis(50);
/// The size after which entries go to the log in another append: with the largest entry behind it, an append
/// fits into a message of a shared log, which has room for 1 MiB or more.
const MAX_APPEND_BYTES: usize = 256 << 10;

/// The reason why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log does not take the entries.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The journal has no entry, although the saga runs.
    #[error("the journal has no entries")]
    NoEntries,
    /// An entry cannot follow on those before it.
    #[error(transparent)]
    Illegal(#[from] IllegalEntry),
    /// An entry has no JSON form, or a stored one is not an entry.
    #[error("an entry of the journal cannot be read or written")]
    Format(#[from] serde_json::Error),
    /// The saga's id cannot be part of a stream's name.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// Reads a whole journal, oldest entry first. Returns an empty list if there is none.
pub(super) async fn events(log: &dyn EventLog, stream: &StreamId) -> Result<Vec<Recorded>, RecordError> {
    let mut events: Vec<Recorded> = Vec::new();
    loop {
        let version = events.last().map_or(Version::START, |event| event.version);
        let page = log.read(stream, version, MAX_PAGE).await?;
        if page.is_empty() {
            return Ok(events);
        }
        events.extend(page);
    }
}

/// Folds a journal. Returns its version and the saga, or `None` if there is no journal.
pub(crate) async fn read(
    log: &dyn EventLog,
    stream: &StreamId,
) -> Result<(Version, Option<Saga>), RecordError> {
    let (mut version, mut saga) = (Version::START, None);
    for event in events(log, stream).await? {
        version = event.version;
        saga = Some(next_state(saga, &variant_of(event.name.as_str(), &event.payload)?)?);
    }
    Ok((version, saga))
}

/// The journal of a saga that runs here. Nothing else writes to it.
pub(super) struct Record {
    log: Arc<dyn EventLog>,
    clock: SharedClock,
    stream: StreamId,
    version: Version,
    saga: Option<Saga>,
    /// The correlation id of the trigger.
    correlation_id: CorrelationId,
    causation_id: Arc<str>,
    /// The caller for which the saga acts, or the operator who acts on it.
    caller: Caller,
    /// Entries that go to the log together with the next one.
    noted: Vec<NewEvent>,
    /// The time at which they are written at the latest; `None` if there are none.
    noted_until: Option<Instant>,
    chain: AppendChain,
    /// True if no command is sent before the pending appends are on disk.
    before_commands: bool,
    /// Entries on their way to the disk. The embedded log keeps the order of appends, so nothing waits for
    /// them one by one: the consequences of an entry are never on disk without it. See
    /// [`Record::pending_before_commands`].
    appending: Vec<Appending>,
}

impl Record {
    /// Reads the journal of a saga that may have run before.
    pub(super) async fn open(
        deps: &Deps,
        id: &SagaId,
        trigger: &Recorded,
        caller: Caller,
    ) -> Result<Self, RecordError> {
        let new = Self::new(deps, id, trigger, caller)?;
        let (version, saga) = read(&*deps.log, &new.stream).await?;
        Ok(Self { version, saga, ..new })
    }

    /// Returns the empty journal of a saga that has never run.
    pub(super) fn new(
        deps: &Deps,
        id: &SagaId,
        trigger: &Recorded,
        caller: Caller,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            log: deps.log.clone(),
            clock: deps.clock.clone(),
            stream: StreamId::new(SAGA, id.as_str())?,
            version: Version::START,
            saga: None,
            correlation_id: trigger.meta.correlation_id.clone(),
            causation_id: trigger.id().into(),
            caller,
            noted: Vec::new(),
            noted_until: None,
            chain: AppendChain::new(),
            before_commands: false,
            appending: Vec::new(),
        })
    }

    /// Returns the journal's version, including entries that are not yet durable.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Returns the chain of the journal's appends, on which the commands of the run stand.
    pub(super) fn chain(&self) -> AppendChain {
        self.chain
    }

    /// Returns the saga, or `None` before the first entry.
    pub(super) fn saga(&self) -> Option<&Saga> {
        self.saga.as_ref()
    }

    /// Applies entries to the saga and starts to write them, after those that were noted before.
    pub(super) fn write(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        self.apply(entries)?;
        self.write_noted();
        Ok(())
    }

    /// Writes entries of which one has no other trace: a command that was accepted without events is decided
    /// again if its entry is lost. No later command is sent before they are on disk.
    pub(super) fn write_before_commands(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        self.before_commands = true;
        self.write(entries)
    }

    /// Applies entries that a replay obtains again if they are lost: those of commands that were accepted
    /// with events, which are answered from the record when they are sent again. They are written together
    /// with the next entry that a replay could not obtain again, or after [`PATIENCE`].
    pub(super) fn note(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        self.apply(entries)?;
        if !self.noted.is_empty() {
            self.noted_until.get_or_insert_with(|| deadline_after(PATIENCE));
        }
        Ok(())
    }

    /// Returns the time at which the noted entries are to be written, or `None` if there are none.
    pub(super) fn noted_until(&self) -> Option<Instant> {
        self.noted_until
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        // An entry that cannot follow is a defect: the record cannot be used after it.
        let mut saga = self.saga.take();
        for entry in entries {
            saga = Some(next_state(saga, entry)?);
            self.noted.push(event_of(entry)?);
        }
        self.saga = saga;
        Ok(())
    }

    /// Starts to write the noted entries, if there are any.
    pub(super) fn write_noted(&mut self) {
        self.noted_until = None;
        for events in appends(std::mem::take(&mut self.noted)) {
            self.append(events);
        }
    }

    fn append(&mut self, events: Vec<NewEvent>) {
        let expected = self.version;
        self.version = expected.after(events.len());
        let command_id = CommandId::from(format!("{}/{}", self.stream.id(), self.version));
        let meta = Meta {
            command: "journal".into(),
            correlation_id: self.correlation_id.clone(),
            causation_id: Some(self.causation_id.clone()),
            time_ms: self.clock.now_ms(),
            ..Meta::of(command_id, &self.caller)
        };
        let append =
            Append { events, meta: Arc::new(meta), ..Append::nothing(self.stream.clone(), expected) };
        self.appending.push(self.log.append_in(self.chain, vec![append]));
    }

    /// Asks the log to confirm that the journal has no later entries.
    pub(super) fn confirm(&mut self) {
        let question = Append::nothing(self.stream.clone(), self.version);
        self.appending.push(self.log.append_in(self.chain, vec![question]));
    }

    /// Takes the pending appends that a command must not overtake on the way to the disk. They must be
    /// awaited before a command is sent: the next host to run the saga could not account for an undo without
    /// its reason, nor for a step that left no other trace.
    pub(super) fn pending_before_commands(&mut self) -> Vec<Appending> {
        let wait = std::mem::take(&mut self.before_commands) || self.log.is_shared();
        if wait { self.take_appending() } else { Vec::new() }
    }

    /// Takes all pending appends.
    pub(super) fn take_appending(&mut self) -> Vec<Appending> {
        std::mem::take(&mut self.appending)
    }
}

/// Divides events among appends of limited size.
fn appends(events: Vec<NewEvent>) -> Vec<Vec<NewEvent>> {
    let (mut appends, mut bytes) = (Vec::<Vec<NewEvent>>::new(), 0);
    for event in events {
        let size = event.name.as_str().len() + event.payload.as_str().len();
        match appends.last_mut() {
            Some(append) if bytes <= MAX_APPEND_BYTES => append.push(event),
            _ => {
                appends.push(vec![event]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    appends
}

/// Returns the caller of a saga's commands: the one that started it, by way of the saga.
pub(super) fn caller(saga: &SagaId, trigger: &Recorded, nobody: &Caller) -> Caller {
    Caller { via: Some(name(saga)), ..trigger.meta.caller(nobody) }
}

/// Returns a saga as the caller of the entries that it writes on its own account.
pub(super) fn own_caller(saga: &SagaId) -> Caller {
    Caller::named(name(saga))
}

fn name(saga: &SagaId) -> Actor {
    format!("{BY_SAGA}{saga}").into()
}

/// Waits until appends are on disk.
pub(super) async fn written(appending: Vec<Appending>) -> Result<(), RecordError> {
    for append in appending {
        append.await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Json;

    #[test]
    fn entries_go_to_the_log_in_appends_of_limited_size() {
        let event = |bytes: usize| {
            let payload = Json::parse(format!("\"{}\"", "x".repeat(bytes))).unwrap();
            NewEvent { name: "step-done".into(), payload }
        };
        let (small, large) = (10, MAX_APPEND_BYTES);
        let table: [(&[usize], &[usize]); 5] = [
            (&[], &[]),
            (&[small, small, small], &[3]),
            (&[small, large, small], &[2, 1]),
            (&[large, large, large], &[1, 1, 1]),
            (&[large / 2, large / 2, large, small], &[2, 1, 1]),
        ];
        for (sizes, expected) in table {
            let appends = appends(sizes.iter().map(|bytes| event(*bytes)).collect());
            assert_eq!(appends.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{sizes:?}");
        }
    }
}
