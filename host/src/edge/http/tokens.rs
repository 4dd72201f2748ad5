//! The tokens of callers, for operators.

use axum::http::{StatusCode, header};
use axum::response::Response;

use super::header_docs::KONTOR_ACTOR;
use super::headers::NO_STORE;
use super::json_reply;
use super::route::{HostRoute, Json, Request};
use crate::api::{List, MadeToken, RevokeQuery, TokenRequest};
use crate::contract::{Method, Problem};
use crate::identity::{NewToken, TokenInfo};
use crate::model::Role;

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/tokens", "tokens.list", list)
            .summary("Lists the tokens, without their secrets, the oldest first."),
        HostRoute::post("/admin/tokens", "tokens.make", make)
            .summary("Makes a token. Only this reply has its text.")
            .statuses(&[StatusCode::CREATED])
            .headers(&[KONTOR_ACTOR])
            .json::<MadeToken>(),
        HostRoute::new(Method::Delete, "/admin/tokens/{id}", "tokens.revoke", revoke)
            .summary("Revokes a token. Requests with it are refused from then on.")
            .headers(&[KONTOR_ACTOR]),
    ]
}

async fn list(request: Request) -> Result<Json<List<TokenInfo>>, Problem> {
    Ok(Json(List { items: request.server().host.identity.tokens() }))
}

async fn make(request: Request<(), Json<TokenRequest>>) -> Result<Response, Problem> {
    let TokenRequest { subject, roles, expires, note } = request.body.0.clone();
    let roles = roles.into_iter().map(Role::from).collect();
    let new = NewToken { subject: subject.into(), roles, expires, note };
    let (text, info) = request.server().host.identity.make_token(new, &request.actor()).await?;
    let made = MadeToken { token: text.reveal().to_owned(), info };
    let mut response = json_reply(StatusCode::CREATED, &made)?;
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    Ok(response)
}

async fn revoke(request: Request<RevokeQuery>) -> Result<Json<TokenInfo>, Problem> {
    let (id, reason) = (request.path("id")?, request.query.reason.clone());
    let identity = &request.server().host.identity;
    Ok(Json(identity.revoke_token(&id, reason, &request.actor()).await?))
}
