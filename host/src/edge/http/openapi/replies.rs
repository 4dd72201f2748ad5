//! The responses of the document: replies and problems, with their headers.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::header_docs::replies::{
    ACCEPT_ENCODING, ETAG, KONTOR_POSITION, LINK, LOCATION, PREFERENCE_APPLIED, WWW_AUTHENTICATE,
};
use super::super::header_docs::{Header, RETRY_AFTER, X_REQUEST_ID};
use super::super::route::{HostRoute, has_body};
use crate::contract::{Method, PROBLEM_JSON, ProblemCode, placeholders};

/// The statuses with which every route may refuse a request.
const ANY_ROUTE: [StatusCode; 8] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// And every route with a body.
const WITH_BODY: [StatusCode; 3] =
    [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNSUPPORTED_MEDIA_TYPE];

/// And every route that asks a component, which may reject.
const OF_COMPONENT: [StatusCode; 4] =
    [StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_GATEWAY];

/// And every route of the host that changes something.
const OF_ACT: [StatusCode; 2] = [StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY];

/// The responses of one operation.
pub(super) struct Responses(BTreeMap<u16, Value>);

impl Responses {
    pub(super) fn of_command() -> Self {
        Self::of([&ANY_ROUTE[..], &WITH_BODY, &OF_COMPONENT, &[StatusCode::PRECONDITION_FAILED]])
    }

    pub(super) fn of_query() -> Self {
        Self::of([&ANY_ROUTE[..], &OF_COMPONENT])
    }

    pub(super) fn of_host(route: &HostRoute) -> Self {
        let absent = [StatusCode::NOT_FOUND];
        Self::of([
            &ANY_ROUTE[..],
            if route.body.is_empty() { &[] } else { &WITH_BODY },
            if route.method == Method::Get { &[] } else { &OF_ACT },
            if placeholders(route.path).next().is_none() { &[] } else { &absent },
            route.problems,
        ])
    }

    fn of<const N: usize>(problems: [&[StatusCode]; N]) -> Self {
        let problems = problems.into_iter().flatten();
        let reference =
            |status: &StatusCode| json!({"$ref": format!("#/components/responses/{}", name(*status))});
        Self(problems.map(|status| (status.as_u16(), reference(status))).collect())
    }

    /// Adds a reply. A status that problems have too is that of both.
    pub(super) fn add(
        &mut self,
        status: StatusCode,
        description: &str,
        headers: &[&Header],
        content: Option<&Value>,
    ) {
        let headers = headers.iter().copied().chain([&KONTOR_POSITION, &X_REQUEST_ID]);
        let mut response = json!({"description": description, "headers": references(headers)});
        if let Some(content) = content.filter(|_| has_body(status)) {
            response["content"] = content.clone();
        }
        if self.0.contains_key(&status.as_u16()) {
            response["content"][PROBLEM_JSON] = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
            response["headers"] = json!({});
        }
        self.0.insert(status.as_u16(), response);
    }

    pub(super) fn into_value(self) -> Value {
        self.0
            .into_iter()
            .map(|(status, response)| (status.to_string(), response))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// Returns the components of the headers of replies.
pub(super) fn headers() -> Value {
    let always = [KONTOR_POSITION, X_REQUEST_ID].map(|header| (header.name, object(&header, true)));
    let sometimes = [ETAG, LOCATION, LINK, PREFERENCE_APPLIED];
    let sometimes = sometimes.map(|header| (header.name, object(&header, false)));
    always
        .into_iter()
        .chain(sometimes)
        .map(|(name, header)| (name.to_owned(), header))
        .collect::<Map<_, _>>()
        .into()
}

/// Returns the components of the problems, one a status.
pub(super) fn problems(problem: &Value) -> Value {
    let mut responses = Map::new();
    for status in ProblemCode::ALL.iter().map(|code| code.status()) {
        let reason = status.canonical_reason().unwrap_or_default();
        let codes = ProblemCode::ALL.iter().filter(|code| code.status() == status);
        let codes: Vec<_> = codes.map(|code| format!("`{}`", code.name())).collect();
        let mut description = format!("{reason}: {}", codes.join(", "));
        let rejections = [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::CONFLICT];
        if rejections.contains(&status) {
            description += ", or the code of a service's rejection";
        }
        let mut headers = references([&X_REQUEST_ID]);
        headers[KONTOR_POSITION.name] = object(&KONTOR_POSITION, false);
        let more = match status {
            StatusCode::UNAUTHORIZED => Some((&WWW_AUTHENTICATE, true)),
            StatusCode::TOO_MANY_REQUESTS => Some((&RETRY_AFTER, true)),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Some((&RETRY_AFTER, false)),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Some((&ACCEPT_ENCODING, false)),
            _ => None,
        };
        if let Some((header, required)) = more {
            headers[header.name] = object(header, required);
        }
        let response = json!({
            "description": description + ".", "headers": headers,
            "content": {PROBLEM_JSON: {"schema": problem}},
        });
        responses.insert(name(status), response);
    }
    responses.into()
}

/// Returns the name of the component with the problems of a status: `NotFound`.
fn name(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or_default().split(' ').collect()
}

fn references<'h>(headers: impl IntoIterator<Item = &'h Header>) -> Value {
    let reference = |header: &Header| {
        (header.name.to_owned(), json!({"$ref": format!("#/components/headers/{}", header.name)}))
    };
    headers.into_iter().map(reference).collect::<Map<_, _>>().into()
}

fn object(header: &Header, required: bool) -> Value {
    json!({"description": header.meaning, "required": required, "schema": header.schema()})
}
