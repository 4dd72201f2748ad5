//! Queries: arguments from the path and the query string, and answers that know how fresh they are.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::parameters::Parameters;
use super::{Call, HttpServer, headers, json_text};
use crate::contract::{Problem, QueryRoute};
use crate::edge::query::refusal;
use crate::model::Json;
use crate::query::{Inquiry, QueryError};

/// Only the caller's own cache may store an answer, and it revalidates the answer at each use.
const CACHING: HeaderValue = HeaderValue::from_static("private, no-cache");

pub(super) async fn answer(
    server: &HttpServer,
    route: &QueryRoute,
    call: &Call<'_>,
) -> Result<Response, Problem> {
    let arguments = arguments(route, call)?;
    let at_least = server.at_least(call.headers)?;
    let wait = at_least.wait.filter(|_| at_least.position.is_some());
    let inquiry = server.host.queries.inquiry(call.caller.clone(), at_least);
    let (body, etag) =
        ask(&inquiry, route, call.headers, arguments).await.map_err(|error| refusal(error, &inquiry))?;
    let mut response = match body {
        None => StatusCode::NOT_MODIFIED.into_response(),
        Some(body) => json_text(StatusCode::OK, body.as_str().to_owned()),
    };
    let headers = response.headers_mut();
    headers.insert(headers::POSITION, inquiry.reflects().get().into());
    headers.insert(header::CACHE_CONTROL, CACHING);
    headers.extend(etag.map(|etag| (header::ETAG, etag)));
    let applied = wait.and_then(headers::wait_applied);
    headers.extend(applied.map(|applied| (headers::PREFERENCE_APPLIED, applied)));
    Ok(response)
}

/// Returns the answer and its ETag; no answer if the caller has stored it. The ETags are compared before a
/// component runs, if possible.
async fn ask(
    inquiry: &Inquiry,
    route: &QueryRoute,
    headers: &HeaderMap,
    arguments: Value,
) -> Result<(Option<Json>, Option<HeaderValue>), QueryError> {
    if headers.contains_key(header::IF_NONE_MATCH) {
        let revision = inquiry.revision(route.service.as_str(), route.query.as_str()).await?;
        let etag = revision.as_ref().and_then(headers::revision_etag);
        if etag.as_ref().is_some_and(|etag| headers::has_kept(headers, etag)) {
            return Ok((None, etag));
        }
    }
    let answer = inquiry.answer(route.service.as_str(), route.query.as_str(), arguments).await?;
    let etag = answer.revision.as_ref().and_then(headers::revision_etag);
    let kept = headers::none_match(headers, etag.as_ref());
    Ok(((!kept).then_some(answer.body), etag))
}

/// Reads the arguments: each placeholder of the path and each parameter of the query string is one, or an
/// item of one that is a list.
fn arguments(route: &QueryRoute, call: &Call<'_>) -> Result<Value, Problem> {
    let mut parameters = Parameters::parse_with_lists(call.query, &route.arguments.lists())?;
    for (name, _) in call.placeholders.iter() {
        parameters.add(Cow::Borrowed(name), call.placeholder(name)?)?;
    }
    Ok(route.arguments.read(parameters.iter()))
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Uri};

    use super::*;
    use crate::contract::fixtures::manifest;
    use crate::contract::{Action, Found, RouteTable};
    use crate::model::Caller;

    fn read(uri: &str) -> Result<String, String> {
        let table = RouteTable::<()>::new([], [&manifest()]).unwrap();
        let uri: Uri = uri.parse().unwrap();
        let Found::Endpoint(endpoint, placeholders) = table.find(&Method::GET, uri.path()) else { panic!() };
        let Action::Query(route) = &endpoint.action else { panic!() };
        let (headers, query, request_id) = (&HeaderMap::new(), uri.query(), "r".into());
        let call = Call { headers, query, placeholders, request_id, caller: Caller::default() };
        let arguments = arguments(route, &call);
        arguments.map(|arguments| arguments.to_string()).map_err(|problem| problem.code().to_owned())
    }

    #[test]
    fn arguments_come_from_the_path_and_the_query_string() {
        for (uri, expected) in [
            ("/orders/7", Ok(r#"{"id":"7"}"#)),
            ("/orders/a%3Ab", Ok(r#"{"id":"a:b"}"#)),
            ("/orders/a%2Fb", Ok(r#"{"id":"a/b"}"#)),
            ("/orders/7?id=8", Err("invalid-parameter")),
            ("/orders/7?color=red", Ok(r#"{"color":"red","id":"7"}"#)),
            ("/orders/7/details?limit=5", Ok(r#"{"id":"7","limit":5}"#)),
            ("/orders/7/details?limit=five", Ok(r#"{"id":"7","limit":"five"}"#)),
            ("/orders/7/details?limit=5&limit=6", Err("invalid-parameter")),
            ("/orders/7/details?tag=a&limit=5&tag=b", Ok(r#"{"id":"7","limit":5,"tag":["a","b"]}"#)),
        ] {
            assert_eq!(read(uri), expected.map(str::to_owned).map_err(str::to_owned), "{uri}");
        }
    }
}
