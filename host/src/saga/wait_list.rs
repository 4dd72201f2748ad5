//! The sagas that sleep or wait for an event. Each takes some hundred bytes here, and nothing of it runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::index::SagaHandle;
use crate::model::{SagaId, StreamId};

/// The sleeping sagas, by the time and by the events that wake them.
#[derive(Default)]
pub(super) struct WaitList {
    sleepers: Mutex<Sleepers>,
    /// Notified when the earliest time has changed.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct Sleepers {
    sagas: HashMap<SagaId, Sleeper>,
    /// The sagas by the time that wakes them, in milliseconds since 1970-01-01 UTC.
    times: BTreeSet<(u64, SagaId)>,
    /// The sagas by the stream with the event that wakes them.
    streams: HashMap<StreamId, Vec<SagaId>>,
}

struct Sleeper {
    handle: Arc<SagaHandle>,
    until_ms: u64,
    event: Option<(StreamId, Vec<String>)>,
}

impl WaitList {
    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a saga that sleeps until a time, or until one of these events happens on a stream. Replaces its
    /// wait, if it has one.
    pub(super) fn add(&self, handle: Arc<SagaHandle>, until_ms: u64, event: Option<(StreamId, Vec<String>)>) {
        let mut sleepers = self.sleepers();
        sleepers.remove(&handle.id);
        let earliest = sleepers.times.first().is_none_or(|(earliest, _)| until_ms < *earliest);
        if let Some((stream, _)) = &event {
            sleepers.streams.entry(stream.clone()).or_default().push(handle.id.clone());
        }
        sleepers.times.insert((until_ms, handle.id.clone()));
        sleepers.sagas.insert(handle.id.clone(), Sleeper { handle, until_ms, event });
        drop(sleepers);
        if earliest {
            self.changed.notify_one();
        }
    }

    pub(super) fn has(&self, id: &SagaId) -> bool {
        self.sleepers().sagas.contains_key(id)
    }

    pub(super) fn remove(&self, id: &SagaId) {
        self.sleepers().remove(id);
    }

    /// Returns the earliest time that wakes a saga.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.sleepers().times.first().map(|(until_ms, _)| *until_ms)
    }

    /// Removes and returns the sagas whose time is over.
    pub(super) fn due(&self, now_ms: u64) -> Vec<Arc<SagaHandle>> {
        let mut sleepers = self.sleepers();
        let due: Vec<SagaId> = sleepers
            .times
            .iter()
            .take_while(|(until_ms, _)| *until_ms <= now_ms)
            .map(|(_, id)| id.clone())
            .collect();
        due.iter().filter_map(|id| sleepers.remove(id)).collect()
    }

    /// Removes and returns the sagas that wait for this event.
    pub(super) fn happened(&self, stream: &StreamId, event: &str) -> Vec<Arc<SagaHandle>> {
        let mut sleepers = self.sleepers();
        let Some(waiting) = sleepers.streams.get(stream) else {
            return Vec::new();
        };
        let awaits = |id: &SagaId| {
            let sleeper = sleepers.sagas.get(id).and_then(|sleeper| sleeper.event.as_ref());
            sleeper.is_some_and(|(_, events)| events.iter().any(|name| name == event))
        };
        let woken: Vec<SagaId> = waiting.iter().filter(|id| awaits(id)).cloned().collect();
        woken.iter().filter_map(|id| sleepers.remove(id)).collect()
    }
}

impl Sleepers {
    fn remove(&mut self, id: &SagaId) -> Option<Arc<SagaHandle>> {
        let (id, Sleeper { handle, until_ms, event }) = self.sagas.remove_entry(id)?;
        if let Some((stream, _)) = event
            && let Some(waiting) = self.streams.get_mut(&stream)
        {
            waiting.retain(|other| *other != id);
            if waiting.is_empty() {
                self.streams.remove(&stream);
            }
        }
        self.times.remove(&(until_ms, id));
        Some(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(id: &str) -> Arc<SagaHandle> {
        SagaHandle::example(id).into()
    }

    fn on(stream: &StreamId, event: &str) -> Option<(StreamId, Vec<String>)> {
        Some((stream.clone(), vec![event.to_owned()]))
    }

    fn ids(sagas: &[Arc<SagaHandle>]) -> Vec<&str> {
        sagas.iter().map(|handle| handle.id.as_str()).collect()
    }

    #[test]
    fn sagas_are_woken_once_each_in_the_order_of_their_times() {
        let waits = WaitList::default();
        for (id, until_ms) in [("b", 20), ("a", 10), ("c", 20), ("d", 30)] {
            waits.add(handle(id), until_ms, None);
        }
        assert_eq!(waits.next_ms(), Some(10));
        assert_eq!(ids(&waits.due(9)), [""; 0]);
        assert_eq!(ids(&waits.due(20)), ["a", "b", "c"]);
        waits.remove(&"d".into());
        assert_eq!(waits.next_ms(), None);
    }

    #[test]
    fn an_event_wakes_the_sagas_that_wait_for_it_and_a_time_those_that_are_due() {
        let waits = WaitList::default();
        let [tea, pot] = ["tea", "pot"].map(|id| StreamId::new("product", id).unwrap());
        waits.add(handle("a"), 10, on(&tea, "stock-added"));
        waits.add(handle("b"), 10, on(&tea, "stock-removed"));
        waits.add(handle("c"), 20, on(&pot, "stock-added"));
        assert_eq!(ids(&waits.happened(&tea, "stock-added")), ["a"]);
        assert_eq!(ids(&waits.happened(&tea, "stock-added")), [""; 0]);
        assert_eq!(ids(&waits.due(15)), ["b"]);
        assert_eq!(ids(&waits.happened(&tea, "stock-removed")), [""; 0]);
        assert_eq!(ids(&waits.happened(&pot, "stock-added")), ["c"]);
        assert_eq!(waits.next_ms(), None);
    }

    #[test]
    fn a_saga_that_is_added_again_waits_only_for_the_later_wait() {
        let waits = WaitList::default();
        let tea = StreamId::new("product", "tea").unwrap();
        waits.add(handle("a"), 10, on(&tea, "stock-added"));
        waits.add(handle("a"), 30, None);
        assert_eq!(ids(&waits.happened(&tea, "stock-added")), [""; 0]);
        assert_eq!(waits.next_ms(), Some(30));
    }
}
