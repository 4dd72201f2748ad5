//! Messages that could not become commands, for operators: a list, redrive and discard.

use super::header_docs::KONTOR_ACTOR;
use super::route::{HostRoute, Json, Request};
use crate::api::{DeadLetterListQuery, DeadLetterSelection, DiscardedDeadLetters, Page, page_size};
use crate::contract::{Problem, ProblemCode};
use crate::error::Chain;
use crate::log::MAX_PAGE;
use crate::messaging::{DeadLetter, DeadLettersError, Messaging, Redriven};
use crate::model::AUDITOR;

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/dead-letters", "dead-letters.list", list)
            .roles(&[AUDITOR])
            .summary("Lists the messages of NATS that could not become commands."),
        HostRoute::post("/admin/dead-letters/redrive", "dead-letters.redrive", redrive).summary(
            "Sends dead letters again as commands, up to 1000 at once, and removes the accepted ones.",
        ),
        HostRoute::post("/admin/dead-letters/discard", "dead-letters.discard", discard)
            .summary("Removes dead letters, up to 1000 at once.")
            .headers(&[KONTOR_ACTOR]),
    ]
}

async fn list(request: Request<DeadLetterListQuery>) -> Result<Json<Page<DeadLetter, u64>>, Problem> {
    let DeadLetterListQuery { service, after, limit } = &request.query;
    let (after, limit) = (after.unwrap_or_default(), page_size(*limit));
    let items = messaging(&request)?.dead_letters(service.as_deref(), after, limit).await?;
    Ok(Json(Page::new(items, limit, |letter| letter.id)))
}

async fn redrive(request: Request<(), Json<DeadLetterSelection>>) -> Result<Json<Redriven>, Problem> {
    let messaging = messaging(&request)?;
    let letters = selected(messaging, &request.body.0).await?;
    Ok(Json(messaging.redrive(letters).await?))
}

async fn discard(
    request: Request<(), Json<DeadLetterSelection>>,
) -> Result<Json<DiscardedDeadLetters>, Problem> {
    let messaging = messaging(&request)?;
    let letters = selected(messaging, &request.body.0).await?;
    let discarded = messaging.discard(letters, request.actor().actor().as_str()).await?;
    Ok(Json(DiscardedDeadLetters { discarded: discarded as u64 }))
}

/// Returns the selected dead letters, a page of them at most.
async fn selected(
    messaging: &Messaging,
    DeadLetterSelection { id, service }: &DeadLetterSelection,
) -> Result<Vec<DeadLetter>, Problem> {
    let (after, limit) = id.map_or((0, MAX_PAGE), |id| (id.saturating_sub(1), 1));
    let mut letters = messaging.dead_letters(service.as_deref(), after, limit).await?;
    if let Some(id) = *id {
        letters.retain(|letter| letter.id == id);
        if letters.is_empty() {
            return Err(Problem::not_found(format!("There is no dead letter with the id {id}.")));
        }
    }
    Ok(letters)
}

fn messaging<Q, B>(request: &Request<Q, B>) -> Result<&Messaging, Problem> {
    let none = "This host is not connected to NATS, so it gets no messages: nats.url is not configured.";
    request.server().host.messaging.as_ref().ok_or_else(|| Problem::new(ProblemCode::NoMessaging, none))
}

impl From<DeadLettersError> for Problem {
    fn from(error: DeadLettersError) -> Self {
        Self::new(ProblemCode::NatsUnavailable, format!("{}.", Chain(&error)))
    }
}
