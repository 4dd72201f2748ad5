//! Shares of a limit: no service may use more than half of it, so that none stalls the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::model::ServiceName;

/// The shares of the services in one limit.
pub(crate) struct Shares {
    each: usize,
    by_service: Mutex<HashMap<ServiceName, Arc<Semaphore>>>,
}

impl Shares {
    /// Divides a limit: half of it for each service, and at least one.
    pub(crate) fn of(limit: usize) -> Self {
        Self { each: limit.div_ceil(2), by_service: Mutex::default() }
    }

    /// Returns the permits of a service.
    pub(crate) fn service(&self, service: &ServiceName) -> Arc<Semaphore> {
        let mut shares = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        match shares.get(service) {
            Some(share) => share.clone(),
            None => shares.entry(service.clone()).or_insert(Arc::new(Semaphore::new(self.each))).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_half_of_a_limit_and_takes_nothing_from_another() {
        let shares = Shares::of(5);
        let [order, payment] = ["order", "payment"].map(ServiceName::from);
        let taken: Vec<_> = (0..3).map(|_| shares.service(&order).try_acquire_owned().unwrap()).collect();
        assert!(shares.service(&order).try_acquire_owned().is_err());
        assert!(shares.service(&payment).try_acquire_owned().is_ok());
        drop(taken);
        assert!(shares.service(&order).try_acquire_owned().is_ok());
    }
}
