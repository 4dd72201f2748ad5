//! The sagas that are active on this host: they run, wait for a place to run, or are held by an operation.

use std::collections::HashMap;
use std::sync::Arc;

use super::index::SagaHandle;
use crate::model::SagaId;

/// The active sagas. Has no lock and no task: its owner does what the answers say.
///
/// A saga that waits for an event looks at the log and then goes to sleep. An event that comes in between
/// must not be missed, so a wake-up of a running saga is remembered, and the saga looks again before it
/// sleeps. Rows are states, columns are events, and a dash is no change:
///
/// | | `enqueue` | `wake` | `claim` | `begin` | `rest` | `lose` | `release` |
/// |---|---|---|---|---|---|---|---|
/// | absent | `Queued` | `Running`, start | `Running`, granted | - | asleep | - | - |
/// | `Queued` | - | `Running`, start | denied | - | absent, asleep | - | absent |
/// | `Running` | - | `Woken` | denied | - | absent, asleep | `Lost` | absent |
/// | `Woken` | - | - | denied | - | `Running`, look again | `Lost` | absent, look again |
/// | `Lost` | - | - | denied | `Woken` | `Running`, look again | - | absent, look again |
///
/// `remove` makes a saga absent in every state.
#[derive(Default)]
pub(super) struct Roster {
    active: HashMap<SagaId, ActiveSaga>,
}

struct ActiveSaga {
    handle: Arc<SagaHandle>,
    slot: Slot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// It runs as soon as its turn comes.
    Queued,
    /// It runs, or will as soon as there is a place; or an operation holds it.
    Running,
    /// Something happened since it looked at the log: it looks again before it sleeps.
    Woken,
    /// Another host has taken it since its journal was read: it takes no step before it has read the journal
    /// again.
    Lost,
}

/// The answer to a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// The caller starts the saga.
    Start,
    /// The saga is running and will look at the log again.
    AlreadyRunning,
}

/// The answer to a saga that has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It is not active any more.
    Asleep,
    /// It has to look at the log: it was woken meanwhile.
    LookAgain,
}

impl Roster {
    /// Adds a saga whose turn comes later. Returns whether it was not active.
    pub(super) fn enqueue(&mut self, handle: &Arc<SagaHandle>) -> bool {
        let new = !self.contains(&handle.id);
        let queued = || ActiveSaga { handle: handle.clone(), slot: Slot::Queued };
        self.active.entry(handle.id.clone()).or_insert_with(queued);
        new
    }

    /// Wakes a saga.
    pub(super) fn wake(&mut self, handle: &Arc<SagaHandle>) -> Wake {
        let queued = || ActiveSaga { handle: handle.clone(), slot: Slot::Queued };
        let slot = &mut self.active.entry(handle.id.clone()).or_insert_with(queued).slot;
        match slot {
            Slot::Queued => {
                *slot = Slot::Running;
                return Wake::Start;
            }
            Slot::Running => *slot = Slot::Woken,
            Slot::Woken | Slot::Lost => {}
        }
        Wake::AlreadyRunning
    }

    /// Takes a saga that is not active, so that nothing else runs it. Returns false if it is active.
    pub(super) fn claim(&mut self, handle: &Arc<SagaHandle>) -> bool {
        let free = !self.contains(&handle.id);
        if free {
            let claimed = ActiveSaga { handle: handle.clone(), slot: Slot::Running };
            self.active.insert(handle.id.clone(), claimed);
        }
        free
    }

    /// Releases a claimed saga. The answer is `LookAgain` if it was woken meanwhile.
    pub(super) fn release(&mut self, id: &SagaId) -> Rest {
        match self.active.remove(id).map(|saga| saga.slot) {
            Some(Slot::Woken | Slot::Lost) => Rest::LookAgain,
            Some(Slot::Queued | Slot::Running) | None => Rest::Asleep,
        }
    }

    /// Notes that a saga is about to read its journal.
    pub(super) fn begin(&mut self, id: &SagaId) {
        if let Some(slot @ Slot::Lost) = self.slot(id) {
            *slot = Slot::Woken;
        }
    }

    /// Lets a saga sleep that has nothing to do, unless something has happened since it looked at the log.
    pub(super) fn rest(&mut self, id: &SagaId) -> Rest {
        match self.slot(id) {
            Some(slot @ (Slot::Woken | Slot::Lost)) => {
                *slot = Slot::Running;
                Rest::LookAgain
            }
            Some(Slot::Queued | Slot::Running) | None => {
                self.remove(id);
                Rest::Asleep
            }
        }
    }

    /// Notes that another host has taken a saga. A queued one has not read its journal yet.
    pub(super) fn lose(&mut self, id: &SagaId) {
        if let Some(slot @ (Slot::Running | Slot::Woken)) = self.slot(id) {
            *slot = Slot::Lost;
        }
    }

    /// Removes a saga that has ended, or cannot continue.
    pub(super) fn remove(&mut self, id: &SagaId) {
        self.active.remove(id);
    }

    pub(super) fn contains(&self, id: &SagaId) -> bool {
        self.active.contains_key(id)
    }

    /// Returns true if another host has taken the saga since its journal was read.
    pub(super) fn is_lost(&self, id: &SagaId) -> bool {
        self.active.get(id).is_some_and(|saga| saga.slot == Slot::Lost)
    }

    pub(super) fn find(&self, id: &SagaId) -> Option<&Arc<SagaHandle>> {
        self.active.get(id).map(|saga| &saga.handle)
    }

    fn slot(&mut self, id: &SagaId) -> Option<&mut Slot> {
        self.active.get_mut(id).map(|saga| &mut saga.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Event = fn(&mut Roster, &Arc<SagaHandle>) -> &'static str;

    const EVENTS: [(&str, Event); 8] = [
        ("enqueue", |roster, saga| {
            roster.enqueue(saga);
            ""
        }),
        ("wake", |roster, saga| match roster.wake(saga) {
            Wake::Start => "start",
            Wake::AlreadyRunning => "",
        }),
        ("claim", |roster, saga| if roster.claim(saga) { "granted" } else { "denied" }),
        ("begin", |roster, saga| {
            roster.begin(&saga.id);
            ""
        }),
        ("rest", |roster, saga| match roster.rest(&saga.id) {
            Rest::Asleep => "asleep",
            Rest::LookAgain => "look again",
        }),
        ("lose", |roster, saga| {
            roster.lose(&saga.id);
            ""
        }),
        ("release", |roster, saga| match roster.release(&saga.id) {
            Rest::Asleep => "",
            Rest::LookAgain => "look again",
        }),
        ("remove", |roster, saga| {
            roster.remove(&saga.id);
            ""
        }),
    ];

    fn saga() -> Arc<SagaHandle> {
        SagaHandle::example("a").into()
    }

    fn roster(slot: Option<Slot>) -> Roster {
        let active = slot.map(|slot| ("a".into(), ActiveSaga { handle: saga(), slot }));
        Roster { active: active.into_iter().collect() }
    }

    /// The state after each event, and the answer, in the order of `EVENTS`.
    const TABLE: [(Option<Slot>, [&str; 8]); 5] = [
        (None, ["Queued", "Running start", "Running granted", "-", "- asleep", "-", "-", "-"]),
        (
            Some(Slot::Queued),
            ["Queued", "Running start", "Queued denied", "Queued", "- asleep", "Queued", "-", "-"],
        ),
        (
            Some(Slot::Running),
            ["Running", "Woken", "Running denied", "Running", "- asleep", "Lost", "-", "-"],
        ),
        (
            Some(Slot::Woken),
            ["Woken", "Woken", "Woken denied", "Woken", "Running look again", "Lost", "- look again", "-"],
        ),
        (
            Some(Slot::Lost),
            ["Lost", "Lost", "Lost denied", "Woken", "Running look again", "Lost", "- look again", "-"],
        ),
    ];

    #[test]
    fn every_event_in_every_state() {
        for (before, row) in TABLE {
            for ((name, event), expected) in EVENTS.into_iter().zip(row) {
                let mut roster = roster(before);
                let answer = event(&mut roster, &saga());
                let after = roster.slot(&"a".into()).map_or("-".to_owned(), |slot| format!("{slot:?}"));
                assert_eq!(format!("{after} {answer}").trim_end(), expected, "{name} in {before:?}");
            }
        }
    }

    #[test]
    fn a_lost_saga_takes_no_step_until_it_begins_again() {
        let (mut roster, saga) = (Roster::default(), saga());
        assert_eq!(roster.wake(&saga), Wake::Start);
        roster.lose(&saga.id);
        assert!(roster.is_lost(&saga.id));
        roster.begin(&saga.id);
        assert!(!roster.is_lost(&saga.id));
        assert_eq!(roster.rest(&saga.id), Rest::LookAgain);
        assert_eq!(roster.rest(&saga.id), Rest::Asleep);
        assert!(!roster.contains(&saga.id));
    }
}
