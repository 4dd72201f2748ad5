//! Sagas: the state of one for its client; for operators the list, the timeline, and the acts on a parked
//! saga.

use super::header_docs::{Header, KONTOR_ACTOR, PREFER};
use super::route::{HostRoute, Json, JsonAt, Request};
use super::{HttpServer, headers};
use crate::api::{Page, ResolveRequest, RetryRequest, SagaListQuery, SkipRequest, page_size};
use crate::contract::{Problem, ProblemCode};
use crate::model::{AUDITOR, Caller, SagaId};
use crate::saga::timeline::{StartedBy, Timeline};
use crate::saga::{Act, Filter, Overview, SagaStatus};

/// The headers that an act on a saga reads.
const ACT_HEADERS: &[Header] = &[KONTOR_ACTOR, PREFER];

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/sagas/{id}", "sagas.status", status)
            .signed_in()
            .summary("Returns the state of a saga.")
            .headers(&[PREFER]),
    ]
}

pub(super) fn operator_routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/sagas", "sagas.list", list)
            .roles(&[AUDITOR])
            .summary("Lists the sagas, newest first."),
        HostRoute::get("/admin/sagas/{id}", "sagas.timeline", timeline)
            .roles(&[AUDITOR])
            .summary("Returns the timeline of a saga: its steps, undos and the acts of operators."),
        HostRoute::post("/admin/sagas/{id}/retry", "sagas.retry", retry)
            .summary("Retries the failed steps or undos of a parked saga.")
            .headers(ACT_HEADERS),
        HostRoute::post("/admin/sagas/{id}/skip", "sagas.skip", skip)
            .summary("Skips one failed step or undo of a parked saga.")
            .headers(ACT_HEADERS),
        HostRoute::post("/admin/sagas/{id}/resolve", "sagas.resolve", resolve)
            .summary("Ends a parked saga that an operator has settled by hand.")
            .headers(ACT_HEADERS),
    ]
}

/// Waits for the end of the saga with `Prefer: wait=N`.
async fn status(request: Request) -> Result<JsonAt<SagaStatus>, Problem> {
    let (server, id) = (request.server(), saga_id(&request)?);
    let unknown = || Problem::not_found(format!("There is no saga with the id {id}."));
    let status = server.host.sagas.status(&id).await?.ok_or_else(unknown)?;
    let started_by = server.host.sagas.started_by(&id).await?;
    may_see(request.caller(), &started_by)?;
    let status = wait_for_end(server, &request, status).await?;
    // All that the saga has done by then is in the log.
    let position = *server.host.log.head().borrow();
    Ok(JsonAt(SagaStatus { started_by: Some(started_by), ..status }, position))
}

/// Fails unless the caller has started the saga or may see all of them.
fn may_see(caller: &Caller, started_by: &StartedBy) -> Result<(), Problem> {
    match caller.has(AUDITOR) || caller.subject.as_ref() == Some(&started_by.actor) {
        true => Ok(()),
        false => Err(Problem::new(ProblemCode::Forbidden, "The saga was started by somebody else.")),
    }
}

fn saga_id<Q, B>(request: &Request<Q, B>) -> Result<SagaId, Problem> {
    Ok(request.path("id")?.into())
}

/// Returns the status when the saga has ended or parked, if the caller prefers to wait for that.
async fn wait_for_end<Q, B>(
    server: &HttpServer,
    request: &Request<Q, B>,
    status: SagaStatus,
) -> Result<SagaStatus, Problem> {
    let Some(wait) = headers::prefer_wait(request.headers(), server.host.limits.wait) else {
        return Ok(status);
    };
    let sagas = &server.host.sagas;
    let waited = tokio::select! {
        waited = sagas.wait(&status.id, wait) => waited?,
        () = server.stopped() => sagas.journaled(&status.id).await?,
    };
    Ok(waited.unwrap_or(status))
}

async fn list(request: Request<SagaListQuery>) -> Result<Json<Page<Overview, SagaId>>, Problem> {
    let SagaListQuery { state, saga, after, limit } = request.query.clone();
    let limit = page_size(limit);
    let filter = Filter { state, name: saga, before: after, limit };
    let items = request.server().host.sagas.list(filter).await?;
    Ok(Json(Page::new(items, limit, |saga| saga.id.clone())))
}

async fn timeline(request: Request) -> Result<Json<Timeline>, Problem> {
    Ok(Json(request.server().host.sagas.timeline(&saga_id(&request)?).await?))
}

async fn retry(request: Request<(), Json<RetryRequest>>) -> Result<Json<SagaStatus>, Problem> {
    let reason = request.body.0.reason.clone();
    act(&request, Act::Retry { reason }).await
}

async fn skip(request: Request<(), Json<SkipRequest>>) -> Result<Json<SagaStatus>, Problem> {
    let SkipRequest { step, reason } = request.body.0.clone();
    act(&request, Act::Skip { step, reason }).await
}

async fn resolve(request: Request<(), Json<ResolveRequest>>) -> Result<Json<SagaStatus>, Problem> {
    let reason = request.body.0.reason.clone();
    act(&request, Act::Resolve { reason }).await
}

/// Waits for the end of the saga with `Prefer: wait=N`.
async fn act<Q, B>(request: &Request<Q, B>, act: Act) -> Result<Json<SagaStatus>, Problem> {
    let (server, id) = (request.server(), saga_id(request)?);
    let status = server.host.sagas.act(&id, act, &request.actor()).await?;
    let status = wait_for_end(server, request, status).await?;
    let started_by = Some(server.host.sagas.started_by(&id).await?);
    Ok(Json(SagaStatus { started_by, ..status }))
}
