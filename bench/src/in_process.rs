//! Components inside of this process, for measurements without a host.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use kontor::runtime::{Component, Runtime, RuntimeLimits};
use tempfile::TempDir;

use crate::server::new_data;

#[derive(clap::Args)]
pub(crate) struct InProcess {
    /// The directory of the components
    #[arg(long, default_value = "../target/plugins")]
    plugins: PathBuf,
    /// Directory for databases and compiled components: on the disk to be measured
    #[arg(long, default_value = "../target")]
    data: PathBuf,
}

/// A component that runs in this process.
pub(crate) struct Loaded {
    pub(crate) data: TempDir,
    pub(crate) runtime: Runtime,
    pub(crate) component: Component,
}

impl InProcess {
    /// Loads the component of a service of the shop, with an empty data directory.
    pub(crate) async fn load(&self, service: &str) -> anyhow::Result<Loaded> {
        let file = self.plugins.join(service).with_extension("wasm");
        let wasm = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let data = new_data(&self.data)?;
        let runtime = Runtime::new(data.path(), RuntimeLimits::default(), HashMap::new())?;
        let component = runtime.load(wasm).await?;
        Ok(Loaded { data, runtime, component })
    }
}
