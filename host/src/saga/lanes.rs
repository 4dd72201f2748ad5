//! The lanes of sagas, one for each service: those that run, and those that wait for their turn. A service
//! whose sagas hang on a slow server keeps no other one's from running.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::index::SagaHandle;
use crate::model::ServiceName;

/// Sagas of one service that run at the same time, including those that wait for an instance, for the log
/// or for the next attempt of a step: some ten kilobytes each.
const MAX_RUNNING: usize = 1_024;

/// The lanes of all services.
#[derive(Default)]
pub(super) struct Lanes {
    by_service: Mutex<HashMap<ServiceName, Lane>>,
}

#[derive(Default)]
struct Lane {
    running: usize,
    waiting: VecDeque<Arc<SagaHandle>>,
}

impl Lanes {
    /// Returns whether a saga may run now. If not, it waits for its turn.
    pub(super) fn enter(&self, handle: &Arc<SagaHandle>) -> bool {
        let mut lanes = self.lock();
        let lane = lanes.entry(handle.service.clone()).or_default();
        let enters = lane.running < MAX_RUNNING;
        match enters {
            true => lane.running += 1,
            false => lane.waiting.push_back(handle.clone()),
        }
        enters
    }

    /// Ends the run of a saga of a service. Returns the next one of the service, which runs in its place.
    pub(super) fn leave(&self, service: &ServiceName) -> Option<Arc<SagaHandle>> {
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
    use crate::model::{Digest, StreamId, Version};
    use crate::saga::entry::Trigger;

    fn saga(service: &str, number: usize) -> Arc<SagaHandle> {
        Arc::new(SagaHandle {
            id: format!("saga-{number}").into(),
            trigger: Trigger { stream: StreamId::new("order", "1").unwrap(), version: Version::new(1) },
            service: service.into(),
            name: "place-order".into(),
            digest: Digest::of(b""),
        })
    }

    #[test]
    fn a_full_lane_keeps_the_others_of_its_service_waiting_and_those_of_no_other() {
        let lanes = Lanes::default();
        assert!((0..MAX_RUNNING).all(|number| lanes.enter(&saga("order", number))));
        let (next, last) = (saga("order", MAX_RUNNING), saga("order", MAX_RUNNING + 1));
        assert!(!lanes.enter(&next) && !lanes.enter(&last));
        assert!(lanes.enter(&saga("payment", 0)));
        assert_eq!((lanes.waiting("order"), lanes.waiting("payment"), lanes.waiting("none")), (2, 0, 0));

        assert_eq!(lanes.leave(&"order".into()).unwrap().id, next.id);
        assert_eq!(lanes.leave(&"order".into()).unwrap().id, last.id);
        assert!(lanes.leave(&"order".into()).is_none());
        assert!(lanes.enter(&next), "a place is free again");
        assert!(!lanes.enter(&last));
    }
}
