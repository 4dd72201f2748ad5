//! The host's own log on standard error, and its metrics.

mod table;

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use self::table::{Kind, METRICS};

pub(crate) use self::table::{
    BUILDING, CALLS_REFUSED, COPY_LAG, COPY_SEQUENCE, DEAD_LETTERS, DENIED, DEPLOYMENT_FOLLOWED, GARBAGE,
    LAG_EVENTS, LAG_SECONDS, LOG_AVAILABLE, LOG_COMMIT, LOG_LINES_DROPPED, LOG_POSITION, MAX_OPEN_FILES,
    MESSAGING_RESTARTS, NATS_CONNECTED, NODES, OLDEST_SAGA, OPEN_FILES, PARKED, POSITION, PUBLISHED,
    REFUSED_BY_LOG, SAGAS,
};

/// The default of RUST_LOG. The client of NATS would log every attempt to connect; the host logs the first
/// one.
const DEFAULT_FILTER: &str = "info,async_nats=off";

/// The upper bounds of the histograms' buckets in seconds. A command takes from a tenth of a millisecond (a
/// warm instance, a quick disk) to the seconds after which it is refused.
const BUCKETS_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The time after which a gauge ends that nobody sets: a scrape or two.
const GAUGE_END: Duration = Duration::from_secs(60);

/// The format of the host's log on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text; colored on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The log or the metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// RUST_LOG is not valid.
    #[error("cannot parse RUST_LOG; examples: info, kontor=debug,info")]
    Filter(#[from] ParseError),
    /// The process has a log of its own.
    #[error("the process has another log already")]
    Logging(#[from] TryInitError),
    /// The process has metrics of its own.
    #[error("the process has other metrics already")]
    Metrics(#[from] BuildError),
}

/// Sends the process's log to standard error, filtered by RUST_LOG. May be called once in a process.
pub fn init_logging(format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter(&std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default())?;
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => logging.with_ansi(has_colors(&stderr())).finish().try_init()?,
        LogFormat::Json => logging.json().finish().try_init()?,
    }
    Ok(())
}

/// Parses the filter of RUST_LOG. Empty stands for the default.
fn filter(directives: &str) -> Result<EnvFilter, TelemetryError> {
    let directives = if directives.is_empty() { DEFAULT_FILTER } else { directives };
    Ok(EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(directives)?)
}

/// Returns true if a stream is a terminal and NO_COLOR is not set (<https://no-color.org>).
pub fn has_colors(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Returns the settings of the recorder. A gauge that was not set for this time ends: all of them are set
/// before they are rendered, except those of what is not there any more.
fn builder(gauge_end: Duration) -> Result<PrometheusBuilder, BuildError> {
    let builder = PrometheusBuilder::new().set_buckets(BUCKETS_SECONDS)?;
    Ok(builder.idle_timeout(MetricKindMask::GAUGE, Some(gauge_end)))
}

/// Returns the handle that renders the process's metrics for Prometheus. The first call installs the
/// recorder; all hosts of a process share it. The caller runs [`PrometheusHandle::run_upkeep`] regularly, or
/// histograms grow with every observation.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = builder(GAUGE_END)?.install_recorder()?;
    for metric in METRICS.iter().flat_map(|(_, metrics)| *metrics) {
        let (name, description) = (metric.name, metric.description());
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(name, description),
            Kind::Gauge => metrics::describe_gauge!(name, description),
            Kind::Histogram => metrics::describe_histogram!(name, description),
        }
    }
    *installed = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_ends_with_what_it_counts_and_a_counter_does_not() {
        let recorder = builder(Duration::from_millis(10)).unwrap().build_recorder();
        let parked = |version| metrics::gauge!(PARKED, "version" => version).set(3.0);
        metrics::with_local_recorder(&recorder, || {
            parked("1");
            metrics::counter!(DENIED).increment(1);
        });
        let render = || {
            metrics::with_local_recorder(&recorder, || parked("2"));
            recorder.handle().render()
        };
        assert!(render().contains("version=\"1\""));
        while render().contains("version=\"1\"") {
            std::thread::yield_now();
        }
        let left = render();
        assert!(left.contains("version=\"2\"") && left.contains(DENIED), "{left}");
    }

    #[test]
    fn the_log_is_filtered_by_rust_log_or_by_info() {
        let table = [
            ("", Some(LevelFilter::INFO)),
            ("warn", Some(LevelFilter::WARN)),
            ("warn,kontor=debug", Some(LevelFilter::DEBUG)),
            ("kontor=loud", None),
        ];
        for (directives, most) in table {
            let found = filter(directives).ok().map(|filter| filter.max_level_hint());
            assert_eq!(found, most.map(Some), "{directives:?}");
        }
    }

    #[test]
    fn all_hosts_of_a_process_share_their_metrics() {
        let first = metrics().unwrap();
        let second = metrics().unwrap();
        metrics::histogram!("telemetry_test_seconds").record(0.002);
        for handle in [first, second] {
            let text = handle.render();
            assert!(text.contains("telemetry_test_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
        }
    }
}
