//! The newest events in memory. Projections and sagas follow the log closely, so each new event is read
//! several times; from here such a read needs neither the disk nor a thread.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use super::read::within_page;
use crate::log::MAX_PAGE;
use crate::model::{LogMark, Position, Recorded};

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
    pub(super) fn extend(&self, events: Vec<Recorded>) {
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

    /// Returns the mark of the newest event. `None`: none was written since the log was opened.
    pub(super) fn newest(&self) -> Option<LogMark> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        kept.events.back().map(Recorded::mark)
    }

    /// Returns up to `limit` events after a position, oldest first. `None`: not all of them are here.
    pub(super) fn after(&self, after: Position, limit: usize) -> Option<Vec<Recorded>> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = kept.events.front()?;
        if oldest.position > after.next() {
            return None;
        }
        let first = kept.events.partition_point(|event| event.position <= after);
        let mut within_page = within_page();
        let events = kept.events.range(first..).take(limit).take_while(|event| within_page(event));
        Some(events.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommitHash, Json, Meta, StreamId, Version};

    /// Returns a tail with events at the positions up to `last`, all with the same payload.
    fn tail(last: u64, payload: &Json) -> Tail {
        let tail = Tail::default();
        let event = |position| Recorded {
            position: Position::new(position),
            stream: StreamId::new("thing", "a").unwrap(),
            version: Version::new(position),
            index: 0,
            name: "done".into(),
            payload: payload.clone(),
            meta: Meta::default().into(),
            hash: CommitHash::GENESIS,
        };
        tail.extend((1..=last).map(event).collect());
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
}
