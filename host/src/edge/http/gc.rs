//! The garbage of the host: files and rows that nothing needs any more.

use std::sync::Arc;

use super::header_docs::KONTOR_ACTOR;
use super::route::{HostRoute, Json, Request};
use crate::api::{GcRequest, List};
use crate::audit::Intended;
use crate::contract::Problem;
use crate::edge::HostContext;
use crate::gc::{Collected, failures};
use crate::model::{AUDITOR, MONITOR};

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/gc", "gc.show", show)
            .roles(&[MONITOR, AUDITOR])
            .summary("Lists what nothing needs any more and a collection would remove, by kind."),
        HostRoute::post("/admin/gc", "gc.collect", collect)
            .summary("Removes what nothing needs any more, and lists what was removed.")
            .headers(&[KONTOR_ACTOR]),
    ]
}

async fn show(request: Request) -> Result<Json<List<Collected>>, Problem> {
    Ok(Json(List { items: request.server().host.gc.dry_run().await? }))
}

async fn collect(request: Request<(), Json<GcRequest>>) -> Result<Json<List<Collected>>, Problem> {
    let intended = Intended::GarbageCollectionRequested { reason: request.body.0.reason.clone() };
    let collect = |host: Arc<HostContext>| async move { Ok(List { items: host.gc.collect().await? }) };
    let failed = |List { items }: &List<Collected>| failures(items);
    Ok(Json(request.perform(intended, collect, failed).await?))
}
