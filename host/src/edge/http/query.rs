//! Queries: arguments from the path and the query string, and answers that know how fresh they are.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::action::QueryRoute;
use super::headers;
use super::parameters::Parameters;
use super::problem::Problem;
use super::{Call, Site, json_text};
use crate::model::{Json, StreamId};

pub(super) async fn answer(site: &Site, route: &QueryRoute, call: &Call<'_>) -> Result<Response, Problem> {
    let arguments = arguments(route, call)?;
    let at_least = headers::at_least(call.headers)?;
    let answer = site.edge.queries.ask(&route.service, &route.query, arguments, at_least).await?;
    let etag = answer.version.and_then(headers::etag);
    let known = etag.as_ref().is_some_and(|etag| headers::none_match(call.headers, etag));
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => json_text(StatusCode::OK, answer.body.as_str().to_owned()),
    };
    let headers = response.headers_mut();
    headers.insert(headers::POSITION, answer.position.into());
    headers.extend(etag.map(|etag| (header::ETAG, etag)));
    Ok(response)
}

/// Each placeholder of the path and each parameter of the query string is an argument.
fn arguments(route: &QueryRoute, call: &Call<'_>) -> Result<Json, Problem> {
    let mut parameters = Parameters::parse(call.query)?;
    for (name, _) in call.placeholders.iter() {
        parameters.add(Cow::Borrowed(name), call.placeholder(name)?)?;
    }
    let arguments = route.arguments.read(parameters.iter()).map_err(|violations| {
        Problem::violations(
            "invalid-arguments",
            "The arguments do not follow the query's schema.",
            violations,
        )
    })?;
    if let (true, Some(Value::String(id))) = (route.is_view, arguments.get("id")) {
        StreamId::new(&route.query, id)?;
    }
    Json::of(&arguments).map_err(|_| Problem::internal())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, Method, Uri};

    use super::*;
    use crate::edge::http::action::Action;
    use crate::edge::http::fixtures::manifest;
    use crate::edge::http::routes::{Found, RouteTable};

    fn read(uri: &str) -> Result<String, String> {
        let table = RouteTable::new([&manifest()]).unwrap();
        let uri: Uri = uri.parse().unwrap();
        let Found::Endpoint(endpoint, placeholders) = table.find(&Method::GET, uri.path()) else { panic!() };
        let Action::Query(route) = &endpoint.action else { panic!() };
        let (headers, query, request_id) = (&HeaderMap::new(), uri.query(), "r".into());
        let arguments = arguments(route, &Call { headers, query, placeholders, request_id });
        arguments.map(|json| json.as_str().to_owned()).map_err(|problem| problem.code().to_owned())
    }

    #[test]
    fn arguments_come_from_the_path_and_the_query_string() {
        for (uri, expected) in [
            ("/orders/7", Ok(r#"{"id":"7"}"#)),
            ("/orders/a%3Ab", Ok(r#"{"id":"a:b"}"#)),
            ("/orders/a%2Fb", Err("invalid-id")),
            ("/orders/7?id=8", Err("invalid-parameter")),
            ("/orders/7?colour=red", Err("invalid-arguments")),
            ("/orders/7/details?limit=5", Ok(r#"{"id":"7","limit":5}"#)),
            ("/orders/7/details?limit=five", Err("invalid-arguments")),
            ("/orders/7/details?limit=5&limit=6", Err("invalid-parameter")),
        ] {
            assert_eq!(read(uri), expected.map(str::to_owned).map_err(str::to_owned), "{uri}");
        }
    }
}
