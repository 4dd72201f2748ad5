//! The sign-in of browsers, and the question of who is signed in.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::headers::{NO_STORE, cookies};
use super::parameters::Parameters;
use super::route::{HostRoute, Json, Request};
use crate::contract::Problem;
use crate::identity::{CALLBACK, Redirect, SignedIn};

/// No issuer is configured for browsers.
const NOT_CONFIGURED: &[StatusCode] = &[StatusCode::NOT_FOUND];

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/auth/sign-in", "auth.sign-in", begin)
            .anyone()
            .summary("Sends a browser to the issuer, to sign in.")
            .statuses(&[StatusCode::SEE_OTHER])
            .problems(NOT_CONFIGURED),
        HostRoute::get(CALLBACK, "auth.callback", finish)
            .anyone()
            .summary("Signs a browser in that the issuer has sent back.")
            .statuses(&[StatusCode::SEE_OTHER])
            .problems(NOT_CONFIGURED),
        HostRoute::post("/auth/sign-out", "auth.sign-out", sign_out)
            .anyone()
            .summary("Signs a browser out.")
            .statuses(&[StatusCode::NO_CONTENT])
            .problems(NOT_CONFIGURED),
        HostRoute::get("/auth/me", "auth.me", me)
            .anyone()
            .summary("Returns the caller, with the CSRF token of a browser that signed in."),
    ]
}

/// The parameters of a sign-in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SignInQuery {
    /// The path to return to. Default: `/`.
    #[serde(default)]
    back: Option<String>,
}

async fn begin(request: Request<SignInQuery>) -> Result<Response, Problem> {
    let identity = &request.server().host.identity;
    redirect(identity.begin_sign_in(request.query.back.as_deref()).await?)
}

/// Issuers add parameters of their own to those of the standard (RFC 6749, 4.1.2).
async fn finish(request: Request) -> Result<Response, Problem> {
    let parameters = Parameters::parse(request.query_string())?;
    let code = match (parameters.get("code"), parameters.get("error")) {
        (Some(code), None) => Ok(code),
        (_, error) => Err(error.unwrap_or("there is no code")),
    };
    let identity = &request.server().host.identity;
    let cookies = cookies(request.headers());
    redirect(identity.finish_sign_in(&cookies, parameters.get("state"), code).await?)
}

async fn sign_out(request: Request) -> Result<Response, Problem> {
    let cookies = request.server().host.identity.sign_out()?;
    respond(StatusCode::NO_CONTENT, &cookies)
}

async fn me(request: Request) -> Result<Json<SignedIn>, Problem> {
    let cookies = cookies(request.headers());
    Ok(Json(request.server().host.identity.signed_in(request.caller(), &cookies)))
}

fn redirect(Redirect { location, cookies }: Redirect) -> Result<Response, Problem> {
    let mut response = respond(StatusCode::SEE_OTHER, &cookies)?;
    let location = HeaderValue::try_from(location).map_err(|_| Problem::internal())?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn respond(status: StatusCode, cookies: &[String]) -> Result<Response, Problem> {
    let mut response = status.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    for cookie in cookies {
        let cookie = HeaderValue::try_from(cookie).map_err(|_| Problem::internal())?;
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
