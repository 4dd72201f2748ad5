//! What is counted of each route and of each subject. The handles are looked up once, not at every request.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, Label};

/// The statuses that the edge answers with.
const STATUSES: [u16; 17] =
    [200, 201, 202, 304, 400, 404, 405, 408, 409, 412, 413, 415, 422, 500, 502, 503, 504];

/// The counters of one way in. Its labels are a route's template or a subject of the manifests, never what a client has made
/// up: there are few of them.
pub(super) struct RequestMetrics {
    counted: &'static str,
    labels: Vec<Label>,
    requests: [OnceLock<Counter>; STATUSES.len()],
    seconds: Histogram,
}

impl RequestMetrics {
    /// Of one method on one route. The recorder must be installed before, or nothing is counted.
    pub(super) fn of_route(route: &str, method: &'static str) -> Self {
        let labels = vec![Label::new("route", route.to_owned()), Label::new("method", method)];
        let seconds = metrics::histogram!("kontor_http_request_seconds", labels.clone());
        Self { counted: "kontor_http_requests_total", labels, requests: Default::default(), seconds }
    }

    /// Of one subject of NATS.
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
