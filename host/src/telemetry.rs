//! What the host tells about itself while it runs: its log on standard error, and its metrics. `METRICS` lists them.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// What is logged unless RUST_LOG says otherwise. The client of NATS tells of every attempt to connect; the host says it once.
const DEFAULT_FILTER: &str = "info,async_nats=off";

pub(crate) const SAGAS: &str = "kontor_sagas";
pub(crate) const OLDEST_SAGA: &str = "kontor_sagas_oldest_seconds";
pub(crate) const POSITION: &str = "kontor_projection_position";
pub(crate) const LAG_EVENTS: &str = "kontor_projection_lag_events";
pub(crate) const LAG_SECONDS: &str = "kontor_projection_lag_seconds";
pub(crate) const PARKED: &str = "kontor_projection_parked_streams";
pub(crate) const BUILDING: &str = "kontor_projection_building_position";
pub(crate) const LOG_AVAILABLE: &str = "kontor_log_available";
pub(crate) const COPY_SEQUENCE: &str = "kontor_log_copy_sequence";
pub(crate) const COPY_LAG: &str = "kontor_log_copy_lag_messages";
pub(crate) const REFUSED_BY_LOG: &str = "kontor_log_refused_total";
pub(crate) const NATS_CONNECTED: &str = "kontor_nats_connected";
pub(crate) const NODES: &str = "kontor_nodes";
pub(crate) const PUBLISHED: &str = "kontor_nats_published_position";
pub(crate) const DEAD_LETTERS: &str = "kontor_nats_dead_letters_total";

/// The upper bounds of the histograms' buckets in seconds. A command takes from a tenth of a millisecond (a warm instance, a
/// quick disk) to the seconds after which it is refused.
const BUCKETS_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What a metric is to Prometheus.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// All metrics of the host: name, and what `/metrics` says of it. A saga that needs a person is
/// `kontor_sagas{state="parked"} > 0`.
const METRICS: [(Kind, &str, &str); 27] = [
    (
        Kind::Counter,
        "kontor_http_requests_total",
        "Requests that were answered, by route, method and status.",
    ),
    (Kind::Histogram, "kontor_http_request_seconds", "How long requests took, by route and method."),
    (
        Kind::Counter,
        "kontor_faults_total",
        "Calls of components that trapped, took too long or broke the contract, by service.",
    ),
    (Kind::Gauge, POSITION, "The position in the log that a read model has reached, by service and version."),
    (Kind::Gauge, LAG_EVENTS, "How many events a read model is behind the log, by service and version."),
    (
        Kind::Counter,
        "kontor_queries_total",
        "Queries that a component was run for, by service and query. Those answered with 304 need none.",
    ),
    (
        Kind::Gauge,
        LAG_SECONDS,
        "How long ago the first event was recorded that a read model has not reached, by service and version; 0 if there \
         is none.",
    ),
    (
        Kind::Gauge,
        BUILDING,
        "The position that a read model has reached which is being built beside the live one, by service and version; 0 if \
         there is none.",
    ),
    (Kind::Gauge, PARKED, "Streams that are parked in a read model, by service and version."),
    (
        Kind::Counter,
        "kontor_projection_parked_total",
        "Streams that a read model could not go on with, by service.",
    ),
    (Kind::Gauge, SAGAS, "Sagas that have not ended, by state: running, waiting, unwinding or parked."),
    (Kind::Gauge, OLDEST_SAGA, "The age of the oldest saga in a state, by state; 0 if there is none."),
    (Kind::Counter, "kontor_sagas_settled_total", "Sagas that ended or parked, by saga and state."),
    (
        Kind::Counter,
        "kontor_saga_steps_total",
        "Commands of sagas, by saga and outcome: done, refused or failed.",
    ),
    (Kind::Counter, "kontor_saga_undos_total", "Commands that undo steps of sagas, by saga and outcome."),
    (
        Kind::Counter,
        "kontor_saga_retries_total",
        "Further attempts of steps, undos and questions of sagas, by saga.",
    ),
    (
        Kind::Counter,
        "kontor_nats_requests_total",
        "Requests over NATS that were answered, by subject and the status that they would have over HTTP.",
    ),
    (Kind::Histogram, "kontor_nats_request_seconds", "How long requests over NATS took, by subject."),
    (Kind::Gauge, LOG_AVAILABLE, "Whether the log takes commands: 1 or 0."),
    (Kind::Counter, REFUSED_BY_LOG, "Commands that were refused at once because the log took none."),
    (
        Kind::Gauge,
        COPY_SEQUENCE,
        "The last message of the log's stream in JetStream that the local copy has.",
    ),
    (
        Kind::Gauge,
        COPY_LAG,
        "Messages that are known to be in the log's stream in JetStream, and not in the local copy yet.",
    ),
    (Kind::Gauge, NODES, "The hosts that share the log, by state: up, silent or left."),
    (Kind::Gauge, NATS_CONNECTED, "Whether the host is connected to NATS: 1 or 0."),
    (Kind::Counter, DEAD_LETTERS, "Messages that could not become commands, by service."),
    (Kind::Gauge, PUBLISHED, "The position in the log up to which events are published to NATS."),
    (
        Kind::Counter,
        "kontor_rollbacks_total",
        "Versions that were taken back because they faulted, by service.",
    ),
];

/// How the host logs to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the host cannot tell about itself.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("RUST_LOG cannot be understood; examples: info, kontor=debug,info")]
    Filter(#[from] ParseError),
    #[error("the process logs already")]
    Logging(#[from] TryInitError),
    #[error("the process has other metrics already")]
    Metrics(#[from] BuildError),
}

/// Sends the process's log to standard error, filtered by RUST_LOG (default: info). Once a process.
pub fn init_logging(format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter(&std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default())?;
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => logging.with_ansi(colours(&stderr())).finish().try_init()?,
        LogFormat::Json => logging.json().finish().try_init()?,
    }
    Ok(())
}

/// What RUST_LOG asks for; empty stands for the default.
fn filter(directives: &str) -> Result<EnvFilter, TelemetryError> {
    let directives = if directives.is_empty() { DEFAULT_FILTER } else { directives };
    Ok(EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(directives)?)
}

/// Whether a stream is read by a person who has not asked for plain text (<https://no-color.org>).
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What renders the process's metrics as Prometheus reads them. The first call installs the recorder; all hosts of a process
/// share it. The caller runs [`PrometheusHandle::run_upkeep`] now and then, or histograms grow with every observation.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new().set_buckets(BUCKETS_SECONDS)?.install_recorder()?;
    for (kind, name, help) in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram => metrics::describe_histogram!(name, help),
        }
    }
    *installed = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_filtered_as_asked_and_by_info_otherwise() {
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
