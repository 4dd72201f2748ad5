//! Read models, for operators: their progress, their parked streams, redrive and replay.

use axum::http::StatusCode;

use super::route::{HostRoute, Json, Request};
use crate::api::{List, PageQuery, ProjectionDetails, RedriveRequest, ReplayRequest, next_page, page_size};
use crate::contract::Problem;
use crate::model::{AUDITOR, MONITOR, Position, StreamId};
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
            .summary("Applies the events of parked streams again, from the one that failed."),
        HostRoute::post("/admin/projections/{service}/replay", "projections.replay", replay)
            .summary("Rebuilds a read model beside the live one, and swaps it in when it has caught up.")
            .statuses(&[StatusCode::ACCEPTED]),
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
    let stream = request.body.0.stream.as_deref().map(StreamId::parse).transpose()?;
    let projections = &request.server().host.projections;
    Ok(Json(projections.redrive(&request.path("service")?, stream).await?))
}

async fn replay(request: Request<(), Json<ReplayRequest>>) -> Result<Json<Overview>, Problem> {
    let projections = &request.server().host.projections;
    Ok(Json(projections.replay(&request.path("service")?, request.body.0.from).await?))
}
