//! Messages that could not become commands, for operators: a list, and to have them carried out after all or removed.

use axum::body::BodyDataStream;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::page::{Page, after_and_limit};
use super::parameters::Parameters;
use super::{Call, Site, command, headers, json};
use crate::contract::{Problem, Schema};
use crate::error::with_causes;
use crate::log::MAX_PAGE;
use crate::messaging::{DeadLetter, DeadLettersError, Messaging};

/// Which of them: one, or all for a service, or all.
#[derive(Deserialize)]
struct Which {
    id: Option<u64>,
    service: Option<String>,
}

/// `GET /admin/dead-letters`
pub(super) async fn list(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    let parameters = Parameters::parse(call.query)?.only(&["service", "after", "limit"])?;
    let (after, limit) = after_and_limit(&parameters)?;
    let items = messaging(site)?.dead_letters(parameters.get("service"), after, limit).await?;
    json(StatusCode::OK, &Page::new(items, limit, |letter| letter.id))
}

/// `POST /admin/dead-letters/redrive`, for a page of them at most.
pub(super) async fn redrive(
    site: &Site,
    schema: &Schema,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    let letters = wanted(site, command::received(site, schema, call, body).await?).await?;
    json(StatusCode::OK, &messaging(site)?.redrive(letters).await?)
}

/// `POST /admin/dead-letters/discard`, for a page of them at most.
pub(super) async fn discard(
    site: &Site,
    schema: &Schema,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    let actor = headers::actor(call.headers)?;
    let letters = wanted(site, command::received(site, schema, call, body).await?).await?;
    json(StatusCode::OK, &serde_json::json!({"discarded": messaging(site)?.discard(letters, actor).await?}))
}

async fn wanted(site: &Site, Which { id, service }: Which) -> Result<Vec<DeadLetter>, Problem> {
    let messaging = messaging(site)?;
    let (after, limit) = id.map_or((0, MAX_PAGE), |id| (id.saturating_sub(1), 1));
    let mut letters = messaging.dead_letters(service.as_deref(), after, limit).await?;
    if let Some(id) = id {
        letters.retain(|letter| letter.id == id);
        if letters.is_empty() {
            return Err(Problem::not_found(format!("There is no dead letter with the id {id}.")));
        }
    }
    Ok(letters)
}

fn messaging(site: &Site) -> Result<&Messaging, Problem> {
    let none = "This host is not connected to NATS, so no messages come to it: nats.url is not configured.";
    site.edge.messaging.as_ref().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no-messaging", none))
}

impl From<DeadLettersError> for Problem {
    fn from(error: DeadLettersError) -> Self {
        Self::unavailable("nats-unavailable", format!("{}.", with_causes(&error)))
    }
}
