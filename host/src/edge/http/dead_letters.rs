//! Messages that could not become commands, for operators: a list, redrive and discard.

use std::sync::Arc;

use axum::http::StatusCode;

use super::header_docs::KONTOR_ACTOR;
use super::route::{HostRoute, Json, Request};
use crate::api::{DeadLetterListQuery, DiscardDeadLetters, Page, RedriveDeadLetters, page_size};
use crate::audit::{Intended, Letter};
use crate::contract::{Problem, ProblemCode};
use crate::edge::HostContext;
use crate::error::Chain;
use crate::log::MAX_PAGE;
use crate::messaging::{DeadLetter, DeadLettersError, Discarded, Messaging, Redriven};
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
    let found = messaging(&request.server().host)?.dead_letters(service.as_deref(), after, limit).await?;
    let (items, next) = found;
    Ok(Json(Page { items, next }))
}

async fn redrive(request: Request<(), Json<RedriveDeadLetters>>) -> Result<Json<Redriven>, Problem> {
    let RedriveDeadLetters { id, service, after, reason } = request.body.0.clone();
    let (letters, next) = selected(messaging(&request.server().host)?, id, service.as_deref(), after).await?;
    if letters.is_empty() {
        return Ok(Json(Redriven { next, ..Redriven::default() }));
    }
    let intended = Intended::DeadLettersRedriveRequested { letters: facts(&letters), reason };
    let redrive = |host: Arc<HostContext>| async move { Ok(messaging(&host)?.redrive(letters).await?) };
    let failed = |Redriven { done, failed, stopped, .. }: &Redriven| {
        let all = done + failed.len() as u64;
        let failed =
            (!failed.is_empty()).then(|| format!("{} of {all} dead letters failed again", failed.len()));
        stopped.clone().or(failed)
    };
    let redriven = request.perform(intended, redrive, failed).await?;
    Ok(Json(Redriven { next: redriven.next.or(next), ..redriven }))
}

async fn discard(request: Request<(), Json<DiscardDeadLetters>>) -> Result<Json<Discarded>, Problem> {
    let DiscardDeadLetters { id, service, after, reason } = request.body.0.clone();
    let (letters, next) = selected(messaging(&request.server().host)?, id, service.as_deref(), after).await?;
    if letters.is_empty() {
        return Ok(Json(Discarded { next, ..Discarded::default() }));
    }
    let intended = Intended::DeadLettersDiscardRequested { letters: facts(&letters), reason };
    let actor = request.actor().actor();
    let discard =
        |host: Arc<HostContext>| async move { Ok(messaging(&host)?.discard(letters, actor.as_str()).await?) };
    let failed = |discarded: &Discarded| discarded.stopped.clone();
    let discarded = request.perform(intended, discard, failed).await?;
    Ok(Json(Discarded { next: discarded.next.or(next), ..discarded }))
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

/// Returns the selected dead letters, a page of them at most, and the start of the next page.
async fn selected(
    messaging: &Messaging,
    id: Option<u64>,
    service: Option<&str>,
    after: Option<u64>,
) -> Result<(Vec<DeadLetter>, Option<u64>), Problem> {
    let Some(id) = id else {
        return Ok(messaging.dead_letters(service, after.unwrap_or_default(), MAX_PAGE).await?);
    };
    let (mut letters, _) = messaging.dead_letters(service, id.saturating_sub(1), 1).await?;
    letters.retain(|letter| letter.id == id);
    match letters.is_empty() {
        true => Err(Problem::not_found(format!("There is no dead letter with the id {id}."))),
        false => Ok((letters, None)),
    }
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
