//! Messages that could not become commands, for operators: a list, redrive and discard.

use std::sync::Arc;

use axum::http::StatusCode;

use super::header_docs::KONTOR_ACTOR;
use super::route::{HostRoute, Json, Request};
use crate::api::{
    DeadLetterListQuery, DiscardDeadLetters, DiscardedDeadLetters, Page, RedriveDeadLetters, page_size,
};
use crate::audit::{Intended, Letter};
use crate::contract::{Problem, ProblemCode};
use crate::edge::HostContext;
use crate::error::Chain;
use crate::log::MAX_PAGE;
use crate::messaging::{DeadLetter, DeadLettersError, Messaging, Redriven};
use crate::model::AUDITOR;

/// The host is not connected to NATS, or has no such dead letter.
const NO_MESSAGING: &[StatusCode] = &[StatusCode::NOT_FOUND];

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/dead-letters", "dead-letters.list", list)
            .roles(&[AUDITOR])
            .summary("Lists the messages of NATS that could not become commands.")
            .problems(NO_MESSAGING),
        HostRoute::post("/admin/dead-letters/redrive", "dead-letters.redrive", redrive)
            .summary(
                "Sends dead letters again as commands, up to 1000 at once, and removes the accepted ones.",
            )
            .problems(NO_MESSAGING)
            .headers(&[KONTOR_ACTOR]),
        HostRoute::post("/admin/dead-letters/discard", "dead-letters.discard", discard)
            .summary("Removes dead letters, up to 1000 at once.")
            .problems(NO_MESSAGING)
            .headers(&[KONTOR_ACTOR]),
    ]
}

async fn list(request: Request<DeadLetterListQuery>) -> Result<Json<Page<DeadLetter, u64>>, Problem> {
    let DeadLetterListQuery { service, after, limit } = &request.query;
    let (after, limit) = (after.unwrap_or_default(), page_size(*limit));
    let items = messaging(&request.server().host)?.dead_letters(service.as_deref(), after, limit).await?;
    Ok(Json(Page::new(items, limit, |letter| letter.id)))
}

async fn redrive(request: Request<(), Json<RedriveDeadLetters>>) -> Result<Json<Redriven>, Problem> {
    let RedriveDeadLetters { id, service, reason } = request.body.0.clone();
    let letters = selected(messaging(&request.server().host)?, id, service.as_deref()).await?;
    if letters.is_empty() {
        return Ok(Json(Redriven::default()));
    }
    let intended = Intended::DeadLettersRedriveRequested { letters: facts(&letters), reason };
    let redrive = |host: Arc<HostContext>| async move { Ok(messaging(&host)?.redrive(letters).await?) };
    let failed = |Redriven { done, failed }: &Redriven| {
        let all = done + failed.len() as u64;
        (!failed.is_empty()).then(|| format!("{} of {all} dead letters failed again", failed.len()))
    };
    Ok(Json(request.perform(intended, redrive, failed).await?))
}

async fn discard(
    request: Request<(), Json<DiscardDeadLetters>>,
) -> Result<Json<DiscardedDeadLetters>, Problem> {
    let DiscardDeadLetters { id, service, reason } = request.body.0.clone();
    let letters = selected(messaging(&request.server().host)?, id, service.as_deref()).await?;
    if letters.is_empty() {
        return Ok(Json(DiscardedDeadLetters { discarded: 0 }));
    }
    let intended = Intended::DeadLettersDiscardRequested { letters: facts(&letters), reason };
    let actor = request.actor().actor();
    let discard =
        |host: Arc<HostContext>| async move { Ok(messaging(&host)?.discard(letters, actor.as_str()).await?) };
    let discarded = request.perform(intended, discard, |_| None).await?;
    Ok(Json(DiscardedDeadLetters { discarded: discarded as u64 }))
}

/// Returns what the log keeps of dead letters.
fn facts(letters: &[DeadLetter]) -> Vec<Letter> {
    let fact = |DeadLetter { id, about, .. }: &DeadLetter| Letter {
        id: *id,
        service: about.service.clone(),
        subject: about.subject.clone(),
        message_id: about.message_id.clone(),
    };
    letters.iter().map(fact).collect()
}

/// Returns the selected dead letters, a page of them at most.
async fn selected(
    messaging: &Messaging,
    id: Option<u64>,
    service: Option<&str>,
) -> Result<Vec<DeadLetter>, Problem> {
    let (after, limit) = id.map_or((0, MAX_PAGE), |id| (id.saturating_sub(1), 1));
    let mut letters = messaging.dead_letters(service, after, limit).await?;
    if let Some(id) = id {
        letters.retain(|letter| letter.id == id);
        if letters.is_empty() {
            return Err(Problem::not_found(format!("There is no dead letter with the id {id}.")));
        }
    }
    Ok(letters)
}

fn messaging(host: &HostContext) -> Result<&Messaging, Problem> {
    let none = "This host is not connected to NATS, so it gets no messages: nats.url is not configured.";
    host.messaging.as_ref().ok_or_else(|| Problem::new(ProblemCode::NoMessaging, none))
}

impl From<DeadLettersError> for Problem {
    fn from(error: DeadLettersError) -> Self {
        Self::new(ProblemCode::NatsUnavailable, format!("{}.", Chain(&error)))
    }
}
