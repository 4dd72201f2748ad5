//! The journal of one saga in the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Deps;
use super::entry::Entry;
use super::journal::{IllegalEntry, Saga, next_state};
use crate::clock::SharedClock;
use crate::log::{Append, AppendChain, AppendError, Appending, EventLog, MAX_PAGE, ReadError};
use crate::model::{
    Actor, CommandId, CorrelationId, InvalidId, Meta, NewEvent, Recorded, SAGA, SagaId, StreamId, Version,
    event_of, variant_of,
};

/// How far the log may be behind what a saga has done, for those who look at it.
const PATIENCE: Duration = Duration::from_millis(50);

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Illegal(#[from] IllegalEntry),
    #[error("an entry of the journal cannot be read or written")]
    Format(#[from] serde_json::Error),
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// A whole journal, oldest entry first; empty if there is none.
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

/// Folds a journal; none if there is none.
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

/// The journal of a saga that runs here, which is the only one to write it.
pub(super) struct Record {
    log: Arc<dyn EventLog>,
    clock: SharedClock,
    stream: StreamId,
    version: Version,
    saga: Option<Saga>,
    /// Of the trigger.
    correlation_id: CorrelationId,
    causation_id: Arc<str>,
    /// The saga itself, or the person who acts on it.
    actor: Actor,
    /// Entries that go to the log with the next one.
    noted: Vec<NewEvent>,
    /// When the first of them was noted.
    noted_since: Option<Instant>,
    chain: AppendChain,
    /// Entries on their way to the disk. Where the log keeps the order nobody waits for them one by one: what follows from
    /// an entry is never on disk without it. See [`Record::overtakable`].
    appending: Vec<Appending>,
}

impl Record {
    /// Of a saga that may have run before.
    pub(super) async fn open(
        deps: &Deps,
        id: &SagaId,
        trigger: &Recorded,
        actor: Actor,
    ) -> Result<Self, RecordError> {
        let new = Self::new(deps, id, trigger, actor)?;
        let (version, saga) = read(&*deps.log, &new.stream).await?;
        Ok(Self { version, saga, ..new })
    }

    /// Of a saga that has never run.
    pub(super) fn new(
        deps: &Deps,
        id: &SagaId,
        trigger: &Recorded,
        actor: Actor,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            log: deps.log.clone(),
            clock: deps.clock.clone(),
            stream: StreamId::new(SAGA, id.as_str())?,
            version: Version::START,
            saga: None,
            correlation_id: trigger.meta.correlation_id.clone(),
            causation_id: trigger.id().into(),
            actor,
            noted: Vec::new(),
            noted_since: None,
            chain: AppendChain::new(),
            appending: Vec::new(),
        })
    }

    /// Of what is in the log or on its way there.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// None before the first entry.
    pub(super) fn saga(&self) -> Option<&Saga> {
        self.saga.as_ref()
    }

    /// Moves the saga on and starts to write the entries, after those that were noted before.
    pub(super) fn write(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        self.take_in(entries)?;
        self.write_noted();
        Ok(())
    }

    /// Moves the saga on by entries that a replay gets again if they are lost: those of accepted commands, which are
    /// answered as before when they are sent again. They are written with the next entry that cannot be got again, or
    /// after [`PATIENCE`].
    pub(super) fn note(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        self.take_in(entries)?;
        if !self.noted.is_empty() {
            self.noted_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// When what was noted is to be written, if anything was.
    pub(super) fn noted_until(&self) -> Option<Instant> {
        self.noted_since.map(|since| since + PATIENCE)
    }

    fn take_in(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        // An entry that cannot follow is a defect: the record is of no use after it.
        let mut saga = self.saga.take();
        for entry in entries {
            saga = Some(next_state(saga, entry)?);
            self.noted.push(event_of(entry)?);
        }
        self.saga = saga;
        Ok(())
    }

    pub(super) fn write_noted(&mut self) {
        self.noted_since = None;
        let events = std::mem::take(&mut self.noted);
        if events.is_empty() {
            return;
        }
        let expected = self.version;
        self.version = expected.after(events.len());
        let meta = Meta {
            command_id: CommandId::from(format!("{}/{}", self.stream.id(), self.version)),
            command: "journal".into(),
            fingerprint: 0,
            correlation_id: self.correlation_id.clone(),
            causation_id: Some(self.causation_id.clone()),
            digest: None,
            time_ms: self.clock.now_ms(),
            actor: self.actor.clone(),
        };
        let append = Append { stream: self.stream.clone(), expected, events, meta: Arc::new(meta) };
        self.appending.push(self.log.append_in(self.chain, vec![append]));
    }

    /// Asks the log whether this is all of the journal.
    pub(super) fn confirm(&mut self) {
        let question = Append::nothing(self.stream.clone(), self.version);
        self.appending.push(self.log.append_in(self.chain, vec![question]));
    }

    /// Takes what a command could overtake on the way to the disk, to wait for it before one is sent: an undo that is there
    /// without the reason for it would be lost on whoever runs the saga next.
    pub(super) fn overtakable(&mut self) -> Vec<Appending> {
        if self.log.is_shared() { self.take_appending() } else { Vec::new() }
    }

    /// Takes what is on its way to the disk, to wait for it.
    pub(super) fn take_appending(&mut self) -> Vec<Appending> {
        std::mem::take(&mut self.appending)
    }
}

/// How the journal names a saga that acts by itself.
pub(super) fn actor(saga: &SagaId) -> Actor {
    format!("saga:{saga}").into()
}

/// Waits until entries are on disk.
pub(super) async fn written(appending: Vec<Appending>) -> Result<(), RecordError> {
    for append in appending {
        append.await?;
    }
    Ok(())
}
