//! The common parts of `kontor export`, `kontor import` and `kontor verify`.

use anyhow::Context as _;
use kontor::backup::Summary;
use kontor::config::{Config, Overrides, Place};
use kontor::host;
use kontor::telemetry;
use tokio::runtime::{self, Runtime};

use super::output::counted;

/// Stands for standard input and output.
pub(super) const STANDARD: &str = "-";

/// Returns the configuration that names the log.
pub(super) fn configured(place: Place) -> anyhow::Result<Config> {
    let config = Config::load(Overrides { place, ..Overrides::default() })?;
    telemetry::init_logging(config.log_format)?;
    host::keep_files_private();
    Ok(config)
}

/// Returns the configuration, and the runtime for the log.
pub(super) fn open(place: Place) -> anyhow::Result<(Config, Runtime)> {
    let config = configured(place)?;
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    Ok((config, runtime.context("cannot start the threads for the log")?))
}

/// Returns `5 components, and 7 events of 3 commands`.
pub(super) fn counts(summary: &Summary) -> String {
    let Summary { components, commands, events, .. } = *summary;
    let components = counted(components, "component");
    format!("{components}, and {} of {}", counted(events, "event"), counted(commands, "command"))
}
