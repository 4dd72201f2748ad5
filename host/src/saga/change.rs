//! The changes to the index of sagas that follow from the events of the log.

use std::sync::Arc;

use rusqlite::types::ToSql;
use rusqlite::{Connection, params};

use super::entry::{Entry, Trigger, Wait};
use super::index::SagaHandle;
use super::journal::SagaState;
use crate::model::{Digest, NodeId, Recorded, SagaId, variant_of};

/// The change to the index that follows from an event of the log.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// An event has started it, or its journal begins.
    Started {
        handle: Arc<SagaHandle>,
    },
    RunsOn {
        id: SagaId,
        digest: Digest,
    },
    Taken {
        id: SagaId,
        node: NodeId,
    },
    Moved {
        id: SagaId,
        state: SagaState,
    },
    Slept {
        id: SagaId,
        until_ms: u64,
    },
    Parked {
        id: SagaId,
        why: String,
    },
    Resumed {
        id: SagaId,
    },
    /// It cannot run, and its journal cannot say so.
    Stuck {
        id: SagaId,
        why: String,
    },
}

impl Change {
    /// Returns the change that follows from an event of a journal, if there is one.
    pub(super) fn of(event: &Recorded) -> Option<Self> {
        let id: SagaId = event.stream.id().into();
        let state = match event.name.as_str() {
            "resumed" | "skipped" => return Some(Self::Resumed { id }),
            "awoken" => SagaState::Running,
            "unwinding" => SagaState::Unwinding,
            "completed" => SagaState::Completed,
            "compensated" => SagaState::Compensated,
            "resolved" => SagaState::Resolved,
            "started" | "taken" | "moved" | "waiting" | "parked" => {
                return match variant_of::<Entry>(event.name.as_str(), &event.payload).ok()? {
                    Entry::Started { service, saga: name, digest, trigger } => {
                        let handle = Arc::new(SagaHandle { id, trigger, service, name, digest });
                        Some(Self::Started { handle })
                    }
                    Entry::Moved { digest } => Some(Self::RunsOn { id, digest }),
                    Entry::Taken { node } => Some(Self::Taken { id, node }),
                    Entry::Waiting { wait: Wait::Sleep { .. }, until_ms, .. } => {
                        Some(Self::Slept { id, until_ms })
                    }
                    Entry::Waiting { .. } => Some(Self::Moved { id, state: SagaState::Waiting }),
                    Entry::Parked { why, .. } => Some(Self::Parked { id, why }),
                    _ => None,
                };
            }
            _ => return None,
        };
        Some(Self::Moved { id, state })
    }
}

impl Change {
    pub(super) fn write(self, connection: &Connection) -> rusqlite::Result<usize> {
        let set = |sql: &str, id: SagaId, value: &dyn ToSql| {
            connection.prepare_cached(sql)?.execute(params![id, value])
        };
        match self {
            Self::Started { handle } => {
                let SagaHandle { id, trigger: Trigger { stream, version }, service, name, digest } = &*handle;
                connection
                    .prepare_cached(
                        "INSERT INTO sagas (id, stream, version, service, name, digest, state)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'running')
                         ON CONFLICT DO UPDATE SET digest = excluded.digest",
                    )?
                    .execute(params![id, stream.as_str(), version, service, name, digest])
            }
            Self::RunsOn { id, digest } => set(
                "UPDATE sagas SET digest = ?2, why = iif(state = 'parked', why, NULL) WHERE id = ?1",
                id,
                &digest,
            ),
            Self::Taken { id, node } => set("UPDATE sagas SET runner = ?2 WHERE id = ?1", id, &node),
            Self::Moved { id, state } => set(
                "UPDATE sagas SET state = ?2, unwound = unwound OR ?2 = 'unwinding', why = NULL,
                 sleeps_until_ms = NULL WHERE id = ?1",
                id,
                &state,
            ),
            Self::Slept { id, until_ms } => set(
                "UPDATE sagas SET state = 'waiting', sleeps_until_ms = ?2 WHERE id = ?1",
                id,
                &i64::try_from(until_ms).unwrap_or(i64::MAX),
            ),
            Self::Parked { id, why } => {
                set("UPDATE sagas SET state = 'parked', why = ?2 WHERE id = ?1", id, &why)
            }
            Self::Stuck { id, why } => set("UPDATE sagas SET why = ?2 WHERE id = ?1", id, &why),
            Self::Resumed { id } => connection
                .prepare_cached(
                    "UPDATE sagas SET state = iif(unwound, 'unwinding', 'running'), why = NULL WHERE id = ?1",
                )?
                .execute([id]),
        }
    }
}
