//! What is counted of each route. The handles are looked up once, not at every request.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Counter, Histogram};

const REQUESTS: &str = "kontor_http_requests_total";
const SECONDS: &str = "kontor_http_request_seconds";

/// The statuses that the edge answers with.
const STATUSES: [u16; 17] =
    [200, 201, 202, 304, 400, 404, 405, 408, 409, 412, 413, 415, 422, 500, 502, 503, 504];

/// The counters of one method on one route. Labels are a route's template, never a path: there are few of them.
pub(super) struct RouteMetrics {
    route: String,
    method: &'static str,
    requests: [OnceLock<Counter>; STATUSES.len()],
    seconds: Histogram,
}

impl RouteMetrics {
    /// The recorder must be installed before, or nothing is counted.
    pub(super) fn new(route: &str, method: &'static str) -> Self {
        Self {
            route: route.to_owned(),
            method,
            requests: Default::default(),
            seconds: metrics::histogram!(SECONDS, "route" => route.to_owned(), "method" => method),
        }
    }

    pub(super) fn record(&self, status: StatusCode, took: Duration) {
        self.seconds.record(took);
        match STATUSES.iter().position(|known| *known == status.as_u16()) {
            Some(index) => self.requests[index].get_or_init(|| self.counter(status)).increment(1),
            None => self.counter(status).increment(1),
        }
    }

    fn counter(&self, status: StatusCode) -> Counter {
        let (route, status) = (self.route.clone(), status.as_str().to_owned());
        metrics::counter!(REQUESTS, "route" => route, "method" => self.method, "status" => status)
    }
}
