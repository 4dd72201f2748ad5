//! The sagas that sleep or wait for an event. One costs some hundred bytes here, and nothing runs of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::index::SagaHandle;
use crate::model::{SagaId, StreamId};

/// Who is woken by what.
#[derive(Default)]
pub(super) struct WaitList {
    kept: Mutex<Sleepers>,
    /// Told when the next time to wake somebody is another one.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct Sleepers {
    sagas: HashMap<SagaId, Sleeper>,
    /// By the time to wake them, milliseconds since 1970-01-01 UTC.
    times: BTreeSet<(u64, SagaId)>,
    /// By what they wait for.
    streams: HashMap<StreamId, Vec<SagaId>>,
}

struct Sleeper {
    handle: Arc<SagaHandle>,
    until_ms: u64,
    event: Option<(StreamId, Vec<String>)>,
}

impl WaitList {
    fn kept(&self) -> MutexGuard<'_, Sleepers> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a saga until that time, or until one of these events happens on a stream if that is what it waits for.
    pub(super) fn add(&self, handle: Arc<SagaHandle>, until_ms: u64, event: Option<(StreamId, Vec<String>)>) {
        let mut kept = self.kept();
        kept.remove(&handle.id);
        let earliest = kept.times.first().is_none_or(|(earliest, _)| until_ms < *earliest);
        if let Some((stream, _)) = &event {
            kept.streams.entry(stream.clone()).or_default().push(handle.id.clone());
        }
        kept.times.insert((until_ms, handle.id.clone()));
        kept.sagas.insert(handle.id.clone(), Sleeper { handle, until_ms, event });
        drop(kept);
        if earliest {
            self.changed.notify_one();
        }
    }

    pub(super) fn has(&self, id: &SagaId) -> bool {
        self.kept().sagas.contains_key(id)
    }

    pub(super) fn remove(&self, id: &SagaId) {
        self.kept().remove(id);
    }

    /// The earliest time that somebody is to be woken at.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.kept().times.first().map(|(until_ms, _)| *until_ms)
    }

    /// Takes out those whose time is over.
    pub(super) fn due(&self, now_ms: u64) -> Vec<Arc<SagaHandle>> {
        let mut kept = self.kept();
        let due: Vec<SagaId> = kept
            .times
            .iter()
            .take_while(|(until_ms, _)| *until_ms <= now_ms)
            .map(|(_, id)| id.clone())
            .collect();
        due.iter().filter_map(|id| kept.remove(id)).collect()
    }

    /// Takes out those who wait for such an event on the stream.
    pub(super) fn happened(&self, stream: &StreamId, event: &str) -> Vec<Arc<SagaHandle>> {
        let mut kept = self.kept();
        let Some(waiting) = kept.streams.get(stream) else {
            return Vec::new();
        };
        let awaits = |id: &SagaId| {
            let sleeper = kept.sagas.get(id).and_then(|sleeper| sleeper.event.as_ref());
            sleeper.is_some_and(|(_, events)| events.iter().any(|name| name == event))
        };
        let woken: Vec<SagaId> = waiting.iter().filter(|id| awaits(id)).cloned().collect();
        woken.iter().filter_map(|id| kept.remove(id)).collect()
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
    use crate::model::Position;

    fn handle(id: &str) -> Arc<SagaHandle> {
        Arc::new(SagaHandle {
            id: id.into(),
            trigger: Position::new(1),
            service: "s".into(),
            name: "n".into(),
        })
    }

    fn on(stream: &StreamId, event: &str) -> Option<(StreamId, Vec<String>)> {
        Some((stream.clone(), vec![event.to_owned()]))
    }

    fn ids(sagas: &[Arc<SagaHandle>]) -> Vec<&str> {
        sagas.iter().map(|handle| handle.id.as_str()).collect()
    }

    #[test]
    fn they_are_woken_once_each_in_the_order_of_their_times() {
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
    fn an_event_wakes_those_who_wait_for_it_and_a_time_those_who_have_waited_long_enough() {
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
    fn who_is_added_again_waits_for_the_last_thing_only() {
        let waits = WaitList::default();
        let tea = StreamId::new("product", "tea").unwrap();
        waits.add(handle("a"), 10, on(&tea, "stock-added"));
        waits.add(handle("a"), 30, None);
        assert_eq!(ids(&waits.happened(&tea, "stock-added")), [""; 0]);
        assert_eq!(waits.next_ms(), Some(30));
    }
}
