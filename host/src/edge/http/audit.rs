//! The acts of operators and deployers, as the log has them.

use super::route::{HostRoute, Json, Request};
use crate::api::{AuditQuery, Page, page_size};
use crate::audit::{AuditEntry, Filter};
use crate::contract::Problem;
use crate::model::{AUDITOR, Position};

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/audit", "audit.list", list)
            .roles(&[AUDITOR])
            .summary("Lists the acts of operators and deployers, oldest first: who, when, and why."),
    ]
}

async fn list(request: Request<AuditQuery>) -> Result<Json<Page<AuditEntry, Position>>, Problem> {
    let AuditQuery { by, since, after, limit } = request.query.clone();
    let limit = page_size(limit);
    let filter = Filter { by, since, after: after.unwrap_or_default(), limit };
    let items = request.server().host.audit.list(filter).await?;
    Ok(Json(Page::new(items, limit, |entry| entry.position)))
}
