//! Sagas: how one stands for its client; for operators a list, a timeline, and what they can do about one that is parked.

use axum::body::BodyDataStream;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::page::{self, Page};
use super::parameters::Parameters;
use super::{Call, Site, command, headers, json};
use crate::contract::{Problem, Schema};
use crate::model::SagaId;
use crate::saga::timeline::ActName;
use crate::saga::{Act, Filter, SagaState, SagaStatus};

/// The body of an act, as far as the act has one.
#[derive(Deserialize)]
struct Words {
    step: Option<String>,
    #[serde(default)]
    reason: String,
}

/// `GET /sagas/{id}`, which waits for the saga's end with `Prefer: wait=N`.
pub(super) async fn status(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    let id = saga_id(call)?;
    let unknown = || Problem::not_found(format!("There is no saga with the id {id}."));
    let status = site.edge.sagas.status(&id).await?.ok_or_else(unknown)?;
    let mut response = json(StatusCode::OK, &awaited(site, call, status).await?)?;
    // All that the saga has done by then is in the log.
    let position = *site.edge.log.head().borrow();
    response.headers_mut().insert(headers::POSITION, position.get().into());
    Ok(response)
}

fn saga_id(call: &Call<'_>) -> Result<SagaId, Problem> {
    Ok(call.placeholder("id")?.into())
}

/// The status when the saga has ended or parked, if the caller wants to wait for that.
async fn awaited(site: &Site, call: &Call<'_>, status: SagaStatus) -> Result<SagaStatus, Problem> {
    let Some(wait) = headers::prefer_wait(call.headers, site.edge.limits.wait) else {
        return Ok(status);
    };
    let sagas = &site.edge.sagas;
    let waited = tokio::select! {
        waited = sagas.wait(&status.id, wait) => waited?,
        () = site.stopped() => sagas.journaled(&status.id).await?,
    };
    Ok(waited.unwrap_or(status))
}

/// `GET /admin/sagas`
pub(super) async fn list(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    let filter = filter(&Parameters::parse(call.query)?.only(&["state", "saga", "after", "limit"])?)?;
    let limit = filter.limit;
    let items = site.edge.sagas.list(filter).await?;
    json(StatusCode::OK, &Page::new(items, limit, |saga| saga.id.clone()))
}

fn filter(parameters: &Parameters<'_>) -> Result<Filter, Problem> {
    let state = parameters.get("state").map(|text| {
        SagaState::parse(text).ok_or_else(|| {
            let known = SagaState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ");
            Problem::invalid_parameter(format!("The parameter state must be one of {known}."))
        })
    });
    Ok(Filter {
        state: state.transpose()?,
        name: parameters.get("saga").map(str::to_owned),
        before: parameters.get("after").map(str::to_owned),
        limit: page::limit(parameters)?,
    })
}

/// `GET /admin/sagas/{id}`
pub(super) async fn timeline(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    json(StatusCode::OK, &site.edge.sagas.timeline(&saga_id(call)?).await?)
}

/// `POST /admin/sagas/{id}/…`, which waits for the saga's end with `Prefer: wait=N`.
pub(super) async fn act(
    site: &Site,
    act: ActName,
    schema: &Schema,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    let Words { step, reason } = command::received(site, schema, call, body).await?;
    let actor = headers::actor(call.headers)?;
    let act = match act {
        ActName::Retry => Act::Retry {},
        ActName::Skip => Act::Skip { step, reason },
        ActName::Resolve => Act::Resolve { reason },
    };
    let status = site.edge.sagas.act(&saga_id(call)?, act, actor).await?;
    json(StatusCode::OK, &awaited(site, call, status).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_narrowed_by_its_parameters() {
        let read = |query| filter(&Parameters::parse(Some(query)).unwrap());
        let Filter { state, name, before, limit } =
            read("state=parked&saga=place-order&after=x&limit=7").unwrap();
        assert_eq!(
            (state, name.as_deref(), before.as_deref()),
            (Some(SagaState::Parked), Some("place-order"), Some("x"))
        );
        assert_eq!((limit, read("").unwrap().limit), (7, 100));
        assert_eq!(read("state=Parked").unwrap_err().code(), "invalid-parameter");
    }
}
