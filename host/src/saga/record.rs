//! The journal of one saga in the log.

use std::sync::Arc;

use super::SagaId;
use super::entry::Entry;
use super::journal::{IllegalEntry, Saga, next_state};
use crate::clock::Clock;
use crate::log::{Append, AppendError, Appending, EventLog, MAX_PAGE, ReadError};
use crate::model::{CommandId, InvalidId, Meta, Recorded, StreamId, Version};

/// The kind of the streams that journals are in: `saga/<id>`.
pub(crate) const AGGREGATE: &str = "saga";

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
        let version = events.last().map_or(0, |event| event.version);
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
    let (mut version, mut saga) = (0, None);
    for event in events(log, stream).await? {
        version = event.version;
        saga = Some(next_state(saga, &Entry::from_event(&event.name, &event.payload)?)?);
    }
    Ok((version, saga))
}

/// The journal of a saga that runs here, which is the only one to write it.
pub(super) struct Record {
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    stream: StreamId,
    version: Version,
    saga: Option<Saga>,
    /// Of the trigger.
    correlation_id: Arc<str>,
    causation_id: Arc<str>,
    /// The saga itself, or the person who acts on it.
    actor: Arc<str>,
    /// Entries on their way to the disk. Nobody waits for them one by one: the log keeps the order, so what follows from
    /// an entry is never on disk without it.
    appending: Vec<Appending>,
}

impl Record {
    pub(super) async fn open(
        log: Arc<dyn EventLog>,
        clock: Arc<dyn Clock>,
        id: &SagaId,
        trigger: &Recorded,
        actor: Arc<str>,
    ) -> Result<Self, RecordError> {
        let stream = StreamId::new(AGGREGATE, id)?;
        let (version, saga) = read(&*log, &stream).await?;
        Ok(Self {
            log,
            clock,
            stream,
            version,
            saga,
            correlation_id: trigger.meta.correlation_id.clone(),
            causation_id: trigger.id().into(),
            actor,
            appending: Vec::new(),
        })
    }

    /// None before the first entry.
    pub(super) fn saga(&self) -> Option<&Saga> {
        self.saga.as_ref()
    }

    /// Moves the saga on and starts to write the entries.
    pub(super) fn write(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut events = Vec::with_capacity(entries.len());
        // An entry that cannot follow is a defect: the record is of no use after it.
        let mut saga = self.saga.take();
        for entry in entries {
            saga = Some(next_state(saga, entry)?);
            events.push(entry.to_event()?);
        }
        let expected = self.version;
        self.version += events.len() as Version;
        self.saga = saga;
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
        self.appending.push(self.log.append(vec![append]));
        Ok(())
    }

    /// Takes what is on its way to the disk, to wait for it.
    pub(super) fn take_appending(&mut self) -> Vec<Appending> {
        std::mem::take(&mut self.appending)
    }
}

/// How the journal names a saga that acts by itself.
pub(super) fn actor(saga: &SagaId) -> Arc<str> {
    format!("saga:{saga}").into()
}

/// Waits until entries are on disk.
pub(super) async fn written(appending: Vec<Appending>) -> Result<(), RecordError> {
    for append in appending {
        append.await?;
    }
    Ok(())
}
