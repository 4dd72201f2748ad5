//! `GET /problems/{code}`: the explanation behind the `type` of a problem.

use super::route::{HostRoute, Json, Request};
use crate::api::ProblemExplanation;
use crate::contract::{Problem, ProblemCode};

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/problems/{code}", "problems.show", show)
            .anyone()
            .summary("Explains a problem code: its title, its meaning and what to do."),
    ]
}

async fn show(request: Request) -> Result<Json<ProblemExplanation>, Problem> {
    let name = request.path("code")?;
    let code = ProblemCode::named(&name);
    let code = code.ok_or_else(|| Problem::not_found(format!("The host has no problem code {name:?}.")))?;
    Ok(Json(code.into()))
}
