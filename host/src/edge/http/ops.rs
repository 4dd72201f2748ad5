//! What operators ask: whether the host is up and ready, its metrics; and the page of the API.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Site, json, json_text};
use crate::contract::Problem;
use crate::edge::metrics;

const API_PAGE: &str = include_str!("api.html");
/// The page's own style and script stand in it, and it talks to this host only.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

/// `GET /`
pub(super) fn page() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, PAGE_POLICY)];
    (headers, API_PAGE).into_response()
}

/// `GET /healthz`: the process answers.
pub(super) fn health() -> Response {
    json_text(StatusCode::OK, r#"{"status":"up"}"#)
}

/// `GET /readyz`: 200 if the host can take traffic, else 503 with what is missing.
pub(super) fn ready(site: &Site) -> Result<Response, Problem> {
    let no_services = site.edge.registry.current().services().next().is_none();
    // The signal closes when the log's writer ends.
    let log_closed = site.edge.log.head().has_changed().is_err();
    readiness(&missing(no_services, log_closed, *site.stopping.borrow()), &site.edge.troubles())
}

fn missing(no_services: bool, log_closed: bool, stopping: bool) -> Vec<&'static str> {
    let checks = [
        (no_services, "no service is deployed"),
        (log_closed, "the log takes no writes"),
        (stopping, "the host is shutting down"),
    ];
    checks.into_iter().filter_map(|(applies, sentence)| applies.then_some(sentence)).collect()
}

/// Troubles are what does not work and does not keep the host from taking traffic.
fn readiness(missing: &[&str], troubles: &[String]) -> Result<Response, Problem> {
    let (status, mut body) = match missing {
        [] => (StatusCode::OK, json!({"status": "ready"})),
        _ => (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "not-ready", "missing": missing})),
    };
    if !troubles.is_empty() {
        body["troubles"] = json!(troubles);
    }
    json(status, &body)
}

/// `GET /admin/nodes`
pub(super) fn nodes(site: &Site) -> Result<Response, Problem> {
    json(StatusCode::OK, &json!({"items": site.edge.nodes.list()}))
}

/// `GET /metrics`. How the sagas and the read models stand is looked up now: it changes with time alone.
pub(super) async fn metrics(site: &Site) -> Result<Response, Problem> {
    metrics::show_log(site.edge.log.state());
    metrics::show_nodes(&site.edge.nodes.list());
    metrics::show_sagas(&site.edge.sagas.counts().await?);
    metrics::show_projections(&site.edge.projections.overviews().await?);
    if let Some(messaging) = &site.edge.messaging {
        metrics::show_messaging(messaging);
    }
    let text_format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, text_format)], site.edge.metrics.render()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_not_ready_says_what_is_missing() {
        assert_eq!(missing(false, false, false), Vec::<&str>::new());
        assert_eq!(readiness(&[], &[]).unwrap().status(), StatusCode::OK);
        assert_eq!(readiness(&[], &["NATS does not answer".to_owned()]).unwrap().status(), StatusCode::OK);
        let all = missing(true, true, true);
        assert_eq!(all, ["no service is deployed", "the log takes no writes", "the host is shutting down"]);
        assert_eq!(readiness(&all, &[]).unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
