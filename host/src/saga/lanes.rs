//! The lanes of sagas, one for each service: those that run, and those that wait for their turn. A service
//! whose sagas hang on a slow server keeps no other one's from running.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::index::SagaHandle;
use crate::model::{Recorded, ServiceName};

/// Sagas of one service that run at the same time, including those that wait for an instance, for the log
/// or for the next attempt of a step: some ten kilobytes each.
const MAX_RUNNING: usize = 1_024;

/// The most bytes of the trigger of a waiting saga that are kept; a larger one is read again.
const MAX_TRIGGER: usize = 4 << 10;

/// A saga to run.
pub(super) struct Turn {
    pub(super) handle: Arc<SagaHandle>,
    /// The trigger of a saga that has never run: it needs no look at the log.
    pub(super) new: Option<Recorded>,
}

/// The lanes of all services.
#[derive(Default)]
pub(super) struct Lanes {
    by_service: Mutex<HashMap<ServiceName, Lane>>,
}

#[derive(Default)]
struct Lane {
    running: usize,
    waiting: VecDeque<Turn>,
}

impl Lanes {
    /// Returns the saga if it may run now. If not, it waits for its turn.
    pub(super) fn enter(&self, Turn { handle, new }: Turn) -> Option<Turn> {
        let mut lanes = self.lock();
        let lane = lanes.entry(handle.service.clone()).or_default();
        if lane.running < MAX_RUNNING {
            lane.running += 1;
            return Some(Turn { handle, new });
        }
        let new = new.filter(|trigger| trigger.payload.as_str().len() <= MAX_TRIGGER);
        lane.waiting.push_back(Turn { handle, new });
        None
    }

    /// Ends the run of a saga of a service. Returns the next one of the service, which runs in its place.
    pub(super) fn leave(&self, service: &ServiceName) -> Option<Turn> {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(service)?;
        let next = lane.waiting.pop_front();
        if next.is_none() {
            lane.running -= 1;
        }
        next
    }

    /// Returns the number of sagas of a service that wait for their turn.
    pub(super) fn waiting(&self, service: &str) -> usize {
        self.lock().get(service).map_or(0, |lane| lane.waiting.len())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceName, Lane>> {
        self.by_service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Json, Position, StreamId, Version};
    use crate::saga::entry::Trigger;

    fn saga(service: &str, number: usize) -> Turn {
        let handle = SagaHandle {
            id: format!("saga-{number}").into(),
            trigger: Trigger { stream: StreamId::new("order", "1").unwrap(), version: Version::new(1) },
            service: service.into(),
            name: "place-order".into(),
            digest: Digest::of(b""),
        };
        Turn { handle: handle.into(), new: None }
    }

    fn trigger(bytes: usize) -> Option<Recorded> {
        Some(Recorded {
            position: Position::new(1),
            stream: StreamId::new("order", "1").unwrap(),
            version: Version::new(1),
            index: 0,
            name: "order-created".into(),
            payload: Json::of(&"x".repeat(bytes)).unwrap(),
            meta: Arc::default(),
            hash: Default::default(),
        })
    }

    #[test]
    fn a_full_lane_keeps_the_others_of_its_service_waiting_and_those_of_no_other() {
        let lanes = Lanes::default();
        assert!((0..MAX_RUNNING).all(|number| lanes.enter(saga("order", number)).is_some()));
        let next = Turn { new: trigger(100), ..saga("order", MAX_RUNNING) };
        let last = Turn { new: trigger(MAX_TRIGGER + 1), ..saga("order", MAX_RUNNING + 1) };
        assert!(lanes.enter(next).is_none() && lanes.enter(last).is_none());
        assert!(lanes.enter(saga("payment", 0)).is_some());
        assert_eq!((lanes.waiting("order"), lanes.waiting("payment"), lanes.waiting("none")), (2, 0, 0));

        let left =
            || lanes.leave(&"order".into()).map(|turn| (turn.handle.id.to_string(), turn.new.is_some()));
        assert_eq!(left(), Some((format!("saga-{MAX_RUNNING}"), true)));
        assert_eq!(left(), Some((format!("saga-{}", MAX_RUNNING + 1), false)), "a large trigger is not kept");
        assert_eq!(left(), None);
        assert!(lanes.enter(saga("order", 0)).is_some(), "a place is free again");
        assert!(lanes.enter(saga("order", 1)).is_none());
    }
}
