//! What `kontor export` and `kontor import` have in common.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kontor::backup::Summary;
use kontor::config::{Config, Overrides, Place};
use kontor::model::Position;
use kontor::telemetry;
use tokio::runtime::{self, Runtime};

use super::projections::counted;

/// Stands for standard input and output.
pub(super) const STANDARD: &str = "-";
/// Between two reports of progress.
const PAUSE: Duration = Duration::from_millis(200);

/// The configuration, and the threads that the log needs.
pub(super) fn open(place: Place) -> anyhow::Result<(Config, Runtime)> {
    let config = Config::load(Overrides { place, ..Overrides::default() })?;
    telemetry::init_logging(config.log_format)?;
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    Ok((config, runtime.context("the threads for the log could not be started")?))
}

/// Tells on a terminal how far it is.
pub(super) fn progress(done: &'static str) -> impl FnMut(Position, Position) {
    let (terminal, mut told) = (stderr().is_terminal(), Instant::now());
    move |position, end| {
        if terminal && (position == end || told.elapsed() >= PAUSE) {
            told = Instant::now();
            let end_of_line = if position == end { "\n" } else { "\r" };
            // Err: nobody sees it.
            let _ = write!(stderr(), "{done} {position} of {end} events{end_of_line}");
        }
    }
}

/// `5 components, and 7 events of 3 commands`
pub(super) fn counted_in(summary: &Summary) -> String {
    let Summary { components, commands, events, .. } = *summary;
    let components = counted(components, "component");
    format!("{components}, and {} of {}", counted(events, "event"), counted(commands, "command"))
}
