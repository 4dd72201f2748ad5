//! The newest events in memory. Projections and sagas follow the log closely, so each new event is read
//! several times; from here such a read needs neither the disk nor a thread.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use crate::log::{Append, MAX_PAGE};
use crate::model::{Position, Recorded};

/// The number of events kept: four pages. A reader that is further behind is late anyway, and reads from
/// disk.
const MAX_EVENTS: usize = 4 * MAX_PAGE;
/// The bytes of their payloads together.
const MAX_BYTES: usize = 16 << 20;

/// The end of the log in memory.
#[derive(Default)]
pub(super) struct Tail(RwLock<Kept>);

#[derive(Default)]
struct Kept {
    /// Oldest first, without a gap.
    events: VecDeque<Recorded>,
    /// The bytes of their payloads.
    bytes: usize,
}

impl Tail {
    /// Adds events that are on disk. They must follow the previous ones without a gap.
    pub(super) fn extend(&self, events: impl Iterator<Item = Recorded>) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            kept.bytes += event.payload.as_str().len();
            kept.events.push_back(event);
        }
        while kept.events.len() > MAX_EVENTS || kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.events.pop_front() else { return };
            kept.bytes -= oldest.payload.as_str().len();
        }
    }

    /// Returns up to `limit` events after a position, oldest first. `None`: not all of them are here.
    pub(super) fn after(&self, after: Position, limit: usize) -> Option<Vec<Recorded>> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = kept.events.front()?;
        if oldest.position > after.next() {
            return None;
        }
        let first = kept.events.partition_point(|event| event.position <= after);
        Some(kept.events.range(first..).take(limit).cloned().collect())
    }
}

/// Returns the events of a batch as they are recorded. `last`: the position of the last one.
pub(super) fn recorded(batch: &[Append], last: Position) -> impl Iterator<Item = Recorded> {
    let events = batch.iter().flat_map(|append| (0..).zip(&append.events).map(move |event| (append, event)));
    let count = batch.iter().map(|append| append.events.len()).sum();
    let before = last.before(count);
    (1..).zip(events).map(move |(nth, (append, (index, event)))| Recorded {
        position: before.after(nth),
        stream: append.stream.clone(),
        version: append.expected.next().after(index as usize),
        index,
        name: event.name.clone(),
        payload: event.payload.clone(),
        meta: append.meta.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommandId, Json, Meta, NewEvent, StreamId, Version};

    fn append(id: &str, expected: u64, payloads: &[Json]) -> Append {
        let meta = Meta {
            command_id: CommandId::from("1".to_owned()),
            command: "do".into(),
            fingerprint: 0,
            correlation_id: "test".into(),
            causation_id: None,
            digest: None,
            time_ms: 0,
            actor: "tester".into(),
        };
        let event = |payload: &Json| NewEvent { name: "done".into(), payload: payload.clone() };
        let stream = StreamId::new("thing", id).unwrap();
        let expected = Version::new(expected);
        Append { stream, expected, events: payloads.iter().map(event).collect(), meta: meta.into() }
    }

    /// Returns a tail with events at the positions up to `last`, all with the same payload.
    fn tail(last: u64, payload: &Json) -> Tail {
        let tail = Tail::default();
        for position in 1..=last {
            let batch = [append("a", position - 1, std::slice::from_ref(payload))];
            tail.extend(recorded(&batch, Position::new(position)));
        }
        tail
    }

    fn positions(tail: &Tail, after: u64, limit: usize) -> Option<Vec<u64>> {
        let events = tail.after(Position::new(after), limit)?;
        Some(events.iter().map(|event| event.position.get()).collect())
    }

    #[test]
    fn it_answers_only_if_it_has_all_that_is_asked_for() {
        let last = MAX_EVENTS as u64 + 10;
        let tail = tail(last, &Json::empty_object());
        let table = [
            (0, None),
            (9, None),
            (10, Some(vec![11, 12])),
            (last - 1, Some(vec![last])),
            (last, Some(vec![])),
            (u64::MAX, Some(vec![])),
        ];
        for (after, expected) in table {
            assert_eq!(positions(&tail, after, 2), expected, "after {after}");
        }
        assert_eq!(positions(&Tail::default(), 0, 2), None);
    }

    #[test]
    fn large_events_are_kept_in_smaller_numbers() {
        let megabyte = Json::of(&"x".repeat(1 << 20)).unwrap();
        let tail = tail(20, &megabyte);
        assert_eq!(positions(&tail, 4, 1), None);
        assert_eq!(positions(&tail, 5, 1), Some(vec![6]));
    }

    #[test]
    fn a_batch_is_recorded_as_it_was_appended() {
        let [one, two] = [1, 2].map(|number| Json::of(&number).unwrap());
        let batch = [append("a", 4, &[one.clone(), two]), append("b", 0, &[one])];
        let found: Vec<_> = recorded(&batch, Position::new(9))
            .map(|event| (event.position.get(), event.stream.to_string(), event.version.get(), event.index))
            .collect();
        let expected = [(7, "thing/a", 5, 0), (8, "thing/a", 6, 1), (9, "thing/b", 1, 0)];
        assert_eq!(
            found,
            expected.map(|(position, stream, version, index)| (position, stream.to_owned(), version, index))
        );
    }
}
