//! Read models, for operators: how far they are, what is parked in them, and to have them go on with it.

use axum::body::BodyDataStream;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, after_and_limit};
use super::parameters::Parameters;
use super::{Call, Site, command, json};
use crate::clock::Time;
use crate::contract::{Problem, Schema};
use crate::model::{Position, StreamId};
use crate::projection::{Overview, ParkedStream};

/// One read model with some of its parked streams.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    overview: Overview,
    parked_streams: Vec<ParkedStream>,
    /// What to send as `after` for those that follow; none if there were no more.
    next: Option<Position>,
}

/// The body of a redrive.
#[derive(Deserialize)]
struct Redriven {
    stream: Option<String>,
}

/// The body of a replay.
#[derive(Deserialize)]
struct Replayed {
    from: Option<Time>,
}

/// `GET /admin/projections`
pub(super) async fn list(site: &Site) -> Result<Response, Problem> {
    json(StatusCode::OK, &json!({"items": site.edge.projections.overviews().await?}))
}

/// `GET /admin/projections/{service}`
pub(super) async fn show(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    let service = call.placeholder("service")?;
    let parameters = Parameters::parse(call.query)?.only(&["after", "limit"])?;
    let (after, limit) = after_and_limit(&parameters)?;
    let overview = site.edge.projections.overview(&service).await?;
    let parked_streams = site.edge.projections.parked(&service, after, limit).await?;
    let next = page::next(&parked_streams, limit, |parked| parked.position);
    json(StatusCode::OK, &Shown { overview, parked_streams, next })
}

/// `POST /admin/projections/{service}/replay`: 202, and it is under way.
pub(super) async fn replay(
    site: &Site,
    schema: &Schema,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    let Replayed { from } = command::received(site, schema, call, body).await?;
    json(StatusCode::ACCEPTED, &site.edge.projections.replay(&call.placeholder("service")?, from).await?)
}

/// `POST /admin/projections/{service}/redrive`
pub(super) async fn redrive(
    site: &Site,
    schema: &Schema,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    let Redriven { stream } = command::received(site, schema, call, body).await?;
    let stream = stream.as_deref().map(StreamId::parse).transpose()?;
    json(StatusCode::OK, &site.edge.projections.redrive(&call.placeholder("service")?, stream).await?)
}
