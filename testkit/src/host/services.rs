//! The services of a host.

use std::collections::{BTreeMap, HashMap};

use kontor::error::with_causes;
use kontor::model::{Digest, Json};
use kontor::runtime::{Component, Runtime, RuntimeLimits};
use serde_json::Value;

use crate::components::{self, block_on};

/// The concurrent calls in one test. Each costs address space, and many tests run at once.
const LIMITS: usize = 8;

/// Components with their configuration. Created once, they serve many hosts one after another.
#[derive(Clone)]
pub struct Services {
    pub(super) runtime: Runtime,
    pub(super) components: Vec<Component>,
    pub(super) files: Vec<Vec<u8>>,
}

impl Services {
    /// Loads the components of services in this workspace, as [`Service::load`](crate::Service::load) finds
    /// them. `configuration`: the keys of each service.
    #[track_caller]
    pub fn load(names: &[&str], configuration: &Value) -> Self {
        let files = names.iter().map(|name| components::built(name)).collect();
        Self::of(files, configuration, LIMITS)
    }

    /// Returns the digests of the components, in the order in which they were named.
    pub fn digests(&self) -> Vec<Digest> {
        self.components.iter().map(Component::digest).collect()
    }

    /// Loads components from their bytes. `sagas`: the maximum number of concurrent saga runs.
    #[track_caller]
    pub fn of(files: Vec<Vec<u8>>, configuration: &Value, sagas: usize) -> Self {
        let configuration: HashMap<String, BTreeMap<String, Json>> =
            serde_json::from_value(configuration.clone()).expect("a configuration by service and key");
        let limits = RuntimeLimits { instances: LIMITS, sagas, ..RuntimeLimits::default() };
        let runtime = match components::runtime(limits, configuration) {
            Ok(runtime) => runtime,
            Err(error) => panic!("{}", with_causes(&error)),
        };
        let load = |wasm: &Vec<u8>| match block_on(runtime.load(wasm.clone())) {
            Ok(component) => component,
            Err(error) => panic!("{}", with_causes(&error)),
        };
        let components = files.iter().map(load).collect();
        Self { runtime, components, files }
    }
}
