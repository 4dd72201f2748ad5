//! Read models, for operators: their progress, their parked streams, redrive and replay.

use std::sync::Arc;

use axum::http::StatusCode;

use super::header_docs::KONTOR_ACTOR;
use super::route::{HostRoute, Json, Request};
use crate::api::{List, PageQuery, ProjectionDetails, RedriveRequest, ReplayRequest, next_page, page_size};
use crate::audit::Intended;
use crate::contract::Problem;
use crate::edge::HostContext;
use crate::model::{AUDITOR, MONITOR, Position, ServiceName, StreamId};
use crate::projection::{Overview, Redrive};

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/projections", "projections.list", list)
            .roles(&[MONITOR, AUDITOR])
            .summary("Lists the read models: their progress and their parked streams."),
        HostRoute::get("/admin/projections/{service}", "projections.show", show)
            .roles(&[MONITOR, AUDITOR])
            .summary("Returns one read model with its parked streams."),
        HostRoute::post("/admin/projections/{service}/redrive", "projections.redrive", redrive)
            .summary("Applies the events of parked streams again, from the one that failed.")
            .headers(&[KONTOR_ACTOR]),
        HostRoute::post("/admin/projections/{service}/replay", "projections.replay", replay)
            .summary("Rebuilds a read model beside the live one, and swaps it in when it has caught up.")
            .statuses(&[StatusCode::ACCEPTED])
            .headers(&[KONTOR_ACTOR]),
    ]
}

async fn list(request: Request) -> Result<Json<List<Overview>>, Problem> {
    Ok(Json(List { items: request.server().host.projections.overviews().await? }))
}

async fn show(request: Request<PageQuery<Position>>) -> Result<Json<ProjectionDetails>, Problem> {
    let projections = &request.server().host.projections;
    let service = request.path("service")?;
    let (after, limit) = (request.query.after.unwrap_or_default(), page_size(request.query.limit));
    let overview = projections.overview(&service).await?;
    let parked_streams = projections.parked(&service, after, limit).await?;
    let next = next_page(&parked_streams, limit, |parked| parked.position);
    Ok(Json(ProjectionDetails { overview, parked_streams, next }))
}

async fn redrive(request: Request<(), Json<RedriveRequest>>) -> Result<Json<Redrive>, Problem> {
    let RedriveRequest { stream, reason } = request.body.0.clone();
    let stream = stream.as_deref().map(StreamId::parse).transpose()?;
    let service = read_model(&request).await?;
    let intended = Intended::RedriveRequested { service: service.clone(), stream: stream.clone(), reason };
    let redrive =
        |host: Arc<HostContext>| async move { Ok(host.projections.redrive(service.as_str(), stream).await?) };
    let failed = |Redrive { streams, parked, .. }: &Redrive| {
        (*parked > 0)
            .then(|| format!("{parked} of {} streams failed again and stay parked", streams + parked))
    };
    Ok(Json(request.perform(intended, redrive, failed).await?))
}

async fn replay(request: Request<(), Json<ReplayRequest>>) -> Result<Json<Overview>, Problem> {
    let ReplayRequest { from, reason } = request.body.0.clone();
    let service = read_model(&request).await?;
    let intended = Intended::ReplayRequested { service: service.clone(), from, reason };
    let replay =
        |host: Arc<HostContext>| async move { Ok(host.projections.replay(service.as_str(), from).await?) };
    Ok(Json(request.perform(intended, replay, |_| None).await?))
}

/// Returns the service whose read model is to be acted on. Fails if it has none: nothing is recorded then.
async fn read_model<B>(request: &Request<(), B>) -> Result<ServiceName, Problem> {
    let overview = request.server().host.projections.overview(&request.path("service")?).await?;
    Ok(overview.service)
}
