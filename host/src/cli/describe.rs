//! The manifests of components, without a host.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Context as _;
use kontor::contract::Manifest;
use kontor::model::Json;
use kontor::runtime::{LoadError, Runtime, RuntimeLimits};
use tempfile::TempDir;
use tokio::runtime;

/// Has components describe themselves.
pub(super) struct Describer {
    tokio: runtime::Runtime,
    components: Runtime,
    /// The compiled code, which nobody needs later.
    _cache: TempDir,
}

impl Describer {
    /// Starts the runtime of components, with these values of their configurations.
    pub(super) fn start(configuration: HashMap<String, BTreeMap<String, Json>>) -> anyhow::Result<Self> {
        let cache = tempfile::tempdir().context("cannot make a directory for the compiled code")?;
        let components = Runtime::new(cache.path(), RuntimeLimits::default(), configuration)?;
        let tokio = runtime::Builder::new_current_thread().enable_all().build();
        let tokio = tokio.context("cannot start a thread for the component")?;
        Ok(Self { tokio, components, _cache: cache })
    }

    /// Returns the manifest of a component.
    pub(super) fn manifest(&self, wasm: Vec<u8>) -> Result<Arc<Manifest>, LoadError> {
        let component = self.tokio.block_on(self.components.load(wasm))?;
        Ok(component.manifest().clone())
    }
}
