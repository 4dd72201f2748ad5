//! STUB, being written. The running set of services.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::manifest::Manifest;
use crate::model::Digest;

/// A service as it runs.
pub struct Service {
    pub manifest: Arc<Manifest>,
    pub digest: Digest,
}

/// One set of services that runs together; never changes, only gets replaced.
#[derive(Default)]
pub struct Deployed {
    /// By name.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
}

#[derive(Default)]
pub struct Registry {
    current: ArcSwap<Deployed>,
}

impl Registry {
    pub fn current(&self) -> Arc<Deployed> {
        self.current.load_full()
    }

    /// Puts another set in the place of the running one.
    pub fn replace(&self, deployed: Deployed) {
        self.current.store(Arc::new(deployed));
    }
}
