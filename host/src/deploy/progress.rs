//! The progress of a deployment, for the operators who wait for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::deployed::{GateName, GateStep};
use crate::model::Digest;

/// The progress of a host's deployments, of which one is in progress at a time.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Option<GateStep>>);

impl Progress {
    /// Returns the current step. `None`: no component is examined.
    pub(super) fn step(&self) -> Option<GateStep> {
        self.lock().clone()
    }

    /// A component has come to a gate.
    pub(super) fn enter(&self, digest: Digest, gate: GateName) {
        *self.lock() = Some(GateStep { digest, gate, done: 0, of: 0 });
    }

    /// The gate has examined so many of all.
    pub(super) fn reach(&self, done: u64, of: u64) {
        if let Some(step) = &mut *self.lock() {
            (step.done, step.of) = (done, of);
        }
    }

    /// The component has passed all gates, or was refused.
    pub(super) fn leave(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<GateStep>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
