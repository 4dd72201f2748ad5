//! The metrics of the host: one table, from which `/metrics` and `docs/reference/metrics.md` are described.

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
pub(crate) const DEPLOYMENT_FOLLOWED: &str = "kontor_deployment_followed";
pub(crate) const PUBLISHED: &str = "kontor_nats_published_position";
pub(crate) const DEAD_LETTERS: &str = "kontor_nats_dead_letters_total";
pub(crate) const MESSAGING_RESTARTS: &str = "kontor_messaging_restarts_total";
pub(crate) const DENIED: &str = "kontor_denied_total";
pub(crate) const LOG_LINES_DROPPED: &str = "kontor_component_log_lines_dropped_total";
pub(crate) const LOG_COMMIT: &str = "kontor_log_commit_seconds";
pub(crate) const LOG_POSITION: &str = "kontor_log_position";
pub(crate) const OPEN_FILES: &str = "kontor_open_files";
pub(crate) const MAX_OPEN_FILES: &str = "kontor_open_files_limit";
pub(crate) const GARBAGE: &str = "kontor_gc_removed_bytes_total";
pub(crate) const CALLS_REFUSED: &str = "kontor_calls_refused_total";

/// The type of a metric in Prometheus.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// A metric.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    /// One or two sentences.
    pub(super) help: &'static str,
}

impl Metric {
    /// Returns the text for `/metrics`, with the labels.
    pub(super) fn description(&self) -> String {
        let Self { labels, help, .. } = self;
        if labels.is_empty() { (*help).to_owned() } else { format!("{help} Labels: {}.", labels.join(", ")) }
    }
}

/// Returns a row of [`METRICS`].
const fn metric(
    kind: Kind,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

/// All metrics of the host, below the headings of the reference.
pub(super) const METRICS: [(&str, &[Metric]); 5] = [
    ("HTTP and NATS", EDGE),
    ("Services", SERVICES),
    ("Sagas", OF_SAGAS),
    ("Read models", READ_MODELS),
    ("Log, cluster and messages", LOG_AND_CLUSTER),
];

const EDGE: &[Metric] = &[
    metric(Counter, "kontor_http_requests_total", &["route", "method", "status"], "HTTP requests answered."),
    metric(
        Histogram,
        "kontor_http_request_seconds",
        &["route", "method"],
        "Time from an HTTP request to its answer.",
    ),
    metric(
        Counter,
        DENIED,
        &["reason"],
        "Requests whose caller was denied the route, over HTTP and NATS. `reason`: `not-signed-in` (401), \
         `no-role` (403, also without the CSRF token of a session) or `rate-limited` (429).",
    ),
    metric(
        Counter,
        "kontor_nats_requests_total",
        &["subject", "status"],
        "Requests over NATS answered, with the status that they would have over HTTP.",
    ),
    metric(
        Histogram,
        "kontor_nats_request_seconds",
        &["subject"],
        "Time from a request over NATS to its answer.",
    ),
    metric(Gauge, OPEN_FILES, &[], "Open files and connections of the process."),
    metric(Gauge, MAX_OPEN_FILES, &[], "Open files that the system allows the process."),
    metric(Gauge, NATS_CONNECTED, &[], "1 if the host is connected to NATS, else 0."),
];

const SERVICES: &[Metric] = &[
    metric(
        Counter,
        "kontor_faults_total",
        &["service"],
        "Calls of components that trapped, exceeded a limit or broke the contract.",
    ),
    metric(
        Counter,
        LOG_LINES_DROPPED,
        &["service"],
        "Lines of a component that are not in the host's own log, because the service logs too much.",
    ),
    metric(Counter, GARBAGE, &["kind"], "Bytes of files and rows that nothing needed any more."),
    metric(
        Counter,
        CALLS_REFUSED,
        &["service"],
        "Calls of components that found no place in time: too many of the service wait for others.",
    ),
    metric(
        Counter,
        "kontor_queries_total",
        &["service", "query"],
        "Queries for which a component was run. A query answered with 304 needs none.",
    ),
    metric(
        Counter,
        "kontor_rollbacks_total",
        &["service"],
        "Versions rolled back automatically because they faulted.",
    ),
    metric(
        Counter,
        "kontor_rollbacks_failed_total",
        &["service"],
        "Versions that faulted and could not be rolled back automatically.",
    ),
];

const OF_SAGAS: &[Metric] = &[
    metric(
        Gauge,
        SAGAS,
        &["state"],
        "Sagas that have not ended, by state: running, waiting, unwinding or parked.",
    ),
    metric(Gauge, OLDEST_SAGA, &["state"], "Age of the oldest saga in a state; 0 if there is none."),
    metric(Counter, "kontor_sagas_settled_total", &["saga", "state"], "Sagas that ended or parked."),
    metric(
        Counter,
        "kontor_saga_steps_total",
        &["saga", "outcome"],
        "Steps of sagas, by outcome: done, refused (rejected) or failed.",
    ),
    metric(
        Counter,
        "kontor_saga_undos_total",
        &["saga", "outcome"],
        "Undos of steps of sagas, by outcome: done, refused (rejected) or failed.",
    ),
    metric(
        Counter,
        "kontor_saga_retries_total",
        &["saga"],
        "Repeated attempts of steps, undos and queries of sagas.",
    ),
];

const READ_MODELS: &[Metric] = &[
    metric(
        Gauge,
        POSITION,
        &["service", "version"],
        "Position in the log up to which a read model has applied all events.",
    ),
    metric(
        Gauge,
        LAG_EVENTS,
        &["service", "version"],
        "Events in the log that a read model has not reached.",
    ),
    metric(
        Gauge,
        LAG_SECONDS,
        &["service", "version"],
        "Age of the first event that a read model has not reached; 0 if there is none.",
    ),
    metric(
        Gauge,
        BUILDING,
        &["service", "version"],
        "Position of the read model that is being built beside the live one; 0 if there is none.",
    ),
    metric(Gauge, PARKED, &["service", "version"], "Streams parked in a read model."),
    metric(
        Counter,
        "kontor_projection_parked_total",
        &["service"],
        "Streams that a read model has parked since the host started.",
    ),
];

const LOG_AND_CLUSTER: &[Metric] = &[
    metric(Gauge, LOG_AVAILABLE, &[], "1 if the log accepts commands, else 0."),
    metric(Histogram, LOG_COMMIT, &[], "Time of a commit of the log on this host's disk."),
    metric(Gauge, LOG_POSITION, &[], "Position of the last event in the log."),
    metric(Counter, REFUSED_BY_LOG, &[], "Commands refused at once because the log was unavailable."),
    metric(Gauge, COPY_SEQUENCE, &[], "Last message of the log's JetStream stream in the local copy."),
    metric(
        Gauge,
        COPY_LAG,
        &[],
        "Messages known to be in the log's JetStream stream and not yet in the local copy.",
    ),
    metric(
        Gauge,
        DEPLOYMENT_FOLLOWED,
        &[],
        "1 if the host runs the last deployment of its log, else 0; `/readyz` says why.",
    ),
    metric(Gauge, NODES, &["state"], "Members of the cluster, by state: up, silent or left."),
    metric(Counter, DEAD_LETTERS, &["service"], "Messages that became dead letters."),
    metric(
        Counter,
        MESSAGING_RESTARTS,
        &["task"],
        "Restarts of a part of messaging that panicked. `task`: `publisher` (events), `taker` (all \
         subscriptions) or `subscription` (one of them).",
    ),
    metric(Gauge, PUBLISHED, &[], "Position in the log up to which events are published to NATS."),
];

impl Kind {
    /// Returns the name of the type.
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    const HEAD: &str = "\
# Metrics

`GET /metrics` serves these in the Prometheus text format. Histograms have buckets from 0.1 ms to 10 s.

Worth an alarm: `kontor_sagas{state=\"parked\"} > 0` (a saga needs an operator),
`kontor_projection_parked_streams > 0`, a growing `kontor_projection_lag_seconds`,
`kontor_log_available == 0`, `kontor_deployment_followed == 0`, any increase of
`kontor_nats_dead_letters_total`. [Monitoring](../monitoring.md) has all of them as rules for Prometheus, and
a dashboard. A gauge ends a minute after what it counts.
";

    fn row(Metric { name, kind, labels, help }: &Metric) -> String {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {} | {} | {help} |\n", kind.name(), labels.join(", "))
    }

    #[test]
    fn snapshot_of_the_reference() {
        let section = |(heading, metrics): (&str, &[Metric])| {
            let rows: String = metrics.iter().map(row).collect();
            format!("\n## {heading}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}")
        };
        let sections: String = METRICS.into_iter().map(section).collect();
        expect_file!["../../../docs/reference/metrics.md"].assert_eq(&(HEAD.to_owned() + &sections));
    }

    #[test]
    fn every_alarm_of_the_reference_is_on_a_metric() {
        let names: Vec<&str> =
            METRICS.iter().flat_map(|(_, metrics)| *metrics).map(|metric| metric.name).collect();
        for named in HEAD.split('`').skip(1).step_by(2).filter(|code| code.starts_with("kontor_")) {
            let name = named.split([' ', '{']).next().unwrap();
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_alerts_and_the_dashboard_are_on_metrics() {
        let metrics: Vec<&Metric> = METRICS.iter().flat_map(|(_, metrics)| *metrics).collect();
        for file in [
            include_str!("../../../docs/monitoring/alerts.yml"),
            include_str!("../../../docs/monitoring/grafana.json"),
        ] {
            let words = file.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
            let named: Vec<&str> = words.filter(|word| word.starts_with("kontor_")).collect();
            assert!(named.len() > 10);
            for name in named {
                let is_metric = |metric: &&Metric| match metric.kind {
                    Histogram => name.strip_suffix("_bucket") == Some(metric.name),
                    Counter | Gauge => name == metric.name,
                };
                assert!(metrics.iter().copied().any(|metric| is_metric(&metric)), "{name}");
            }
        }
    }
}
