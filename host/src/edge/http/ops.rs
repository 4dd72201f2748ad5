//! The state of the host for operators: health, readiness, metrics, the members of the cluster; and the page
//! of the API.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::json_reply;
use super::open_files::OpenFiles;
use super::route::{HostRoute, Json, Request};
use crate::api::{Health, HealthStatus, List, Readiness, ReadinessStatus};
use crate::cluster::ObservedMember;
use crate::contract::Problem;
use crate::edge::metrics;
use crate::model::{AUDITOR, DEPLOYER, MONITOR};

const API_PAGE: &str = include_str!("api.html");
/// The page contains its own style and script, and connects to this host only.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

pub(super) fn api_routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/", "api.page", page)
            .anyone()
            .summary("Shows this API as a page.")
            .media("text/html"),
    ]
}

pub(super) fn health_routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/healthz", "health", health).anyone().summary("Reports that the process is up."),
        HostRoute::get("/readyz", "readiness", ready)
            .anyone()
            .summary("Reports if the host can take traffic, and its warnings.")
            .statuses(&[StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE])
            .json::<Readiness>(),
        HostRoute::get("/metrics", "metrics", metrics)
            .roles(&[MONITOR])
            .summary("Returns the metrics in the Prometheus text format.")
            .for_operators()
            .media("text/plain"),
    ]
}

pub(super) fn cluster_routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/nodes", "nodes.list", nodes)
            .roles(&[MONITOR, DEPLOYER, AUDITOR])
            .summary("Lists the members of the cluster and their state."),
    ]
}

async fn page(_: Request) -> Result<Response, Problem> {
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, PAGE_POLICY)];
    Ok((headers, API_PAGE).into_response())
}

async fn health(_: Request) -> Result<Json<Health>, Problem> {
    Ok(Json(Health { status: HealthStatus::Up }))
}

/// Answers 200 if the host can take traffic, else 503 with what is missing.
async fn ready(request: Request) -> Result<Response, Problem> {
    let server = request.server();
    let no_services = server.host.registry.current().services().next().is_none();
    // The signal closes when the log's writer ends.
    let log_closed = server.host.log.head().has_changed().is_err();
    let log_stopped = server.host.log.state().stopped.is_some();
    let missing = missing(no_services, log_closed, log_stopped, *server.stopping.borrow());
    let (status, readiness) = readiness(missing, server.host.warnings());
    json_reply(status, &readiness)
}

fn missing(no_services: bool, log_closed: bool, log_stopped: bool, stopping: bool) -> Vec<&'static str> {
    let checks = [
        (no_services, "no service is deployed"),
        (log_closed, "the log takes no writes"),
        (log_stopped, "this host does not follow the log any more; the reason is among the warnings"),
        (stopping, "the host is shutting down"),
    ];
    checks.into_iter().filter_map(|(applies, sentence)| applies.then_some(sentence)).collect()
}

fn readiness(missing: Vec<&str>, warnings: Vec<String>) -> (StatusCode, Readiness) {
    let missing: Vec<_> = missing.into_iter().map(str::to_owned).collect();
    let (code, status) = match missing.is_empty() {
        true => (StatusCode::OK, ReadinessStatus::Ready),
        false => (StatusCode::SERVICE_UNAVAILABLE, ReadinessStatus::NotReady),
    };
    (code, Readiness { status, missing, warnings })
}

async fn nodes(request: Request) -> Result<Json<List<ObservedMember>>, Problem> {
    Ok(Json(List { items: request.server().host.nodes.list() }))
}

/// The gauges of the sagas and the read models are set now, because they change with time alone.
async fn metrics(request: Request) -> Result<Response, Problem> {
    let host = &request.server().host;
    metrics::show_log(&host.log.state(), *host.log.head().borrow());
    OpenFiles::now().into_iter().for_each(metrics::show_open_files);
    metrics::show_nodes(&host.nodes.list());
    metrics::show_deployment(host.deployer.behind().is_none());
    metrics::show_sagas(&host.sagas.counts().await?);
    metrics::show_projections(&host.projections.overviews().await?);
    if let Some(messaging) = &host.messaging {
        metrics::show_messaging(messaging);
    }
    let text_format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, text_format)], host.metrics.render()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_not_ready_says_what_is_missing() {
        assert_eq!(missing(false, false, false, false), Vec::<&str>::new());
        assert_eq!(readiness(vec![], vec![]).0, StatusCode::OK);
        assert_eq!(readiness(vec![], vec!["NATS does not answer".to_owned()]).0, StatusCode::OK);
        let all = missing(true, true, false, true);
        assert_eq!(all, ["no service is deployed", "the log takes no writes", "the host is shutting down"]);
        assert_eq!(readiness(all, vec![]).0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
