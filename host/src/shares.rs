//! Shares of a limit: no service may use more than half of it, so that none stalls the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::model::ServiceName;

/// The shares of the services: a `T` for each, made when it is first asked for.
pub(crate) struct Shares<T = Semaphore> {
    new: Box<dyn Fn() -> T + Send + Sync>,
    by_service: Mutex<HashMap<ServiceName, Arc<T>>>,
}

impl Shares {
    /// Divides one limit: half of it for each service.
    pub(crate) fn of(limit: usize) -> Self {
        Self::new(move || half(limit))
    }
}

impl<T> Shares<T> {
    pub(crate) fn new(new: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { new: Box::new(new), by_service: Mutex::default() }
    }

    /// Returns the share of a service.
    pub(crate) fn service(&self, service: &ServiceName) -> Arc<T> {
        let mut shares = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        match shares.get(service) {
            Some(share) => share.clone(),
            None => shares.entry(service.clone()).or_insert(Arc::new((self.new)())).clone(),
        }
    }
}

/// Returns the permits of a share: half of a limit, and at least one.
pub(crate) fn half(limit: usize) -> Semaphore {
    Semaphore::new(limit.div_ceil(2))
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
