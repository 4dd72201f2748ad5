//! The common parts of `kontor export`, `kontor import` and `kontor verify`.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::Duration;

use anyhow::Context as _;
use kontor::backup::Summary;
use kontor::clock::Stopwatch;
use kontor::config::{Config, Overrides, Place};
use kontor::host;
use kontor::model::Position;
use kontor::telemetry;
use tokio::runtime::{self, Runtime};

use super::output::counted;

/// Stands for standard input and output.
pub(super) const STANDARD: &str = "-";
/// The time between two reports of progress: often enough for a reader.
const PAUSE: Duration = Duration::from_millis(200);

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

/// Returns a function that prints the progress on standard error, if that is a terminal.
pub(super) fn progress(done: &'static str) -> impl FnMut(Position, Position) {
    let (terminal, mut last) = (stderr().is_terminal(), Stopwatch::start());
    move |position, end| {
        if terminal && (position == end || last.elapsed() >= PAUSE) {
            last = Stopwatch::start();
            let end_of_line = if position == end { "\n" } else { "\r" };
            // Err: standard error is closed, and nobody reads the progress.
            let _ = write!(stderr(), "{done} {position} of {end} events{end_of_line}");
        }
    }
}

/// Returns `5 components, and 7 events of 3 commands`.
pub(super) fn counts(summary: &Summary) -> String {
    let Summary { components, commands, events, .. } = *summary;
    let components = counted(components, "component");
    format!("{components}, and {} of {}", counted(events, "event"), counted(commands, "command"))
}
