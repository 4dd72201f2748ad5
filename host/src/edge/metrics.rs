//! The metrics of each route and of each subject. Their handles are looked up once, not at every request.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, Label};

use super::http::OpenFiles;
use crate::cluster::{MemberState, ObservedMember};
use crate::log::LogState;
use crate::messaging::Messaging;
use crate::model::Position;
use crate::projection::Overview;
use crate::saga::StateCount;
use crate::telemetry::{
    BUILDING, COPY_LAG, COPY_SEQUENCE, DEPLOYMENT_FOLLOWED, LAG_EVENTS, LAG_SECONDS, LOG_AVAILABLE,
    LOG_POSITION, MAX_OPEN_FILES, NATS_CONNECTED, NODES, OLDEST_SAGA, OPEN_FILES, PARKED, POSITION,
    PUBLISHED, SAGAS,
};

/// The statuses that the edge answers with.
pub(super) const STATUSES: [u16; 24] = [
    200, 201, 202, 204, 303, 304, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 415, 421, 422, 429, 500,
    502, 503, 504,
];

/// The metrics of one route or subject. The label is a route's template or a subject of the manifests, never
/// the text of a client, so there are few.
pub(super) struct RequestMetrics {
    counted: &'static str,
    labels: Vec<Label>,
    requests: [OnceLock<Counter>; STATUSES.len()],
    seconds: Histogram,
}

impl RequestMetrics {
    /// Returns the metrics of one method on one route. The recorder must be installed before, or nothing is
    /// counted.
    pub(super) fn of_route(route: &str, method: &'static str) -> Self {
        let labels = vec![Label::new("route", route.to_owned()), Label::new("method", method)];
        let seconds = metrics::histogram!("kontor_http_request_seconds", labels.clone());
        Self { counted: "kontor_http_requests_total", labels, requests: Default::default(), seconds }
    }

    /// Returns the metrics of one subject of NATS.
    pub(super) fn of_subject(subject: &str) -> Self {
        let labels = vec![Label::new("subject", subject.to_owned())];
        let seconds = metrics::histogram!("kontor_nats_request_seconds", labels.clone());
        Self { counted: "kontor_nats_requests_total", labels, requests: Default::default(), seconds }
    }

    pub(super) fn record(&self, status: u16, took: Duration) {
        self.seconds.record(took);
        match STATUSES.iter().position(|known| *known == status) {
            Some(index) => self.requests[index].get_or_init(|| self.counter(status)).increment(1),
            None => self.counter(status).increment(1),
        }
    }

    fn counter(&self, status: u16) -> Counter {
        let mut labels = self.labels.clone();
        labels.push(Label::new("status", status.to_string()));
        metrics::counter!(self.counted, labels)
    }
}

/// Sets the gauges of the sagas that have not ended.
pub(crate) fn show_sagas(counts: &[StateCount]) {
    for StateCount { state, sagas, oldest } in counts {
        metrics::gauge!(SAGAS, "state" => state.as_str()).set(*sagas as f64);
        metrics::gauge!(OLDEST_SAGA, "state" => state.as_str()).set(oldest.as_secs_f64());
    }
}

/// Sets the gauges of the log.
pub(crate) fn show_log(log: &LogState, head: Position) {
    metrics::gauge!(LOG_POSITION).set(head.get() as f64);
    metrics::gauge!(LOG_AVAILABLE).set(u8::from(log.takes_appends));
    if let Some(copy) = log.copy {
        metrics::gauge!(COPY_SEQUENCE).set(copy.sequence.get() as f64);
        metrics::gauge!(COPY_LAG).set(copy.behind as f64);
    }
}

/// Sets the gauges of the open files.
pub(crate) fn show_open_files(OpenFiles { open, limit }: OpenFiles) {
    metrics::gauge!(OPEN_FILES).set(open as f64);
    metrics::gauge!(MAX_OPEN_FILES).set(limit as f64);
}

/// Sets the gauges of the members of the cluster.
pub(crate) fn show_nodes(nodes: &[ObservedMember]) {
    for (state, label) in
        [(MemberState::Up, "up"), (MemberState::Silent, "silent"), (MemberState::Left, "left")]
    {
        let there = nodes.iter().filter(|seen| seen.state == state).count();
        metrics::gauge!(NODES, "state" => label).set(there as f64);
    }
}

/// Sets the gauge of the deployments. `followed`: true if the host runs the last one.
pub(crate) fn show_deployment(followed: bool) {
    metrics::gauge!(DEPLOYMENT_FOLLOWED).set(u8::from(followed));
}

/// Sets the gauge of the connection to NATS.
pub(crate) fn show_messaging(messaging: &Messaging) {
    metrics::gauge!(NATS_CONNECTED).set(u8::from(messaging.is_connected()));
    if let Some(position) = messaging.published() {
        metrics::gauge!(PUBLISHED).set(position.get() as f64);
    }
}

/// Sets the gauges of the read models, each with the labels `service` and `version`:
///
/// | metric | meaning | alarm |
/// |---|---|---|
/// | `kontor_projection_position` | everything in the log up to here is applied | |
/// | `kontor_projection_lag_events` | events behind that | |
/// | `kontor_projection_lag_seconds` | age of the first of them | when it grows |
/// | `kontor_projection_parked_streams` | parked streams | above 0 |
/// | `kontor_projection_building_position` | position of the rebuild beside it; 0 without one | |
pub(crate) fn show_projections(projections: &[Overview]) {
    for projection in projections {
        let labels =
            [("service", projection.service.to_string()), ("version", projection.version.to_string())];
        metrics::gauge!(POSITION, &labels).set(projection.position.get() as f64);
        metrics::gauge!(LAG_EVENTS, &labels).set(projection.lag_events as f64);
        metrics::gauge!(LAG_SECONDS, &labels).set(Duration::from_millis(projection.lag_ms).as_secs_f64());
        metrics::gauge!(PARKED, &labels).set(projection.parked as f64);
        let building = projection.building.as_ref().map_or(0, |building| building.position.get());
        metrics::gauge!(BUILDING, &labels).set(building as f64);
    }
}
