//! What queries have in common, whichever door they come in by.

use serde_json::{Value, json};

use super::problem::Problem;
use super::schema::Violation;
use crate::error::CallError;
use crate::manifest::Manifest;
use crate::model::{Json, StreamId};
use crate::query::Inquiry;

/// The argument of the query for an aggregate's view.
const ID: &str = "id";

/// The schema of the arguments of a query, which may be that for the view of an aggregate; none if there is no such query. An
/// error is a sentence that says what is wrong with it.
pub(super) fn arguments_schema(manifest: &Manifest, query: &str) -> Option<Result<Value, String>> {
    match manifest.query(query) {
        Some(query) => Some(query.arguments.read().map_err(|error| error.to_string())),
        None => manifest.aggregate(query).map(|_| Ok(view_arguments())),
    }
}

/// The schema of the arguments of the query for an aggregate's view.
pub(super) fn view_arguments() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": [ID], "properties": {ID: {"type": "string"}},
    })
}

pub(super) fn invalid_arguments(violations: Vec<Violation>) -> Problem {
    Problem::violations("invalid-arguments", "The arguments do not follow the query's schema.", violations)
}

/// Arguments that follow their schema, as the service gets them. The id of an aggregate must be one.
pub(super) fn admitted(query: &str, is_view: bool, arguments: &Value) -> Result<Json, Problem> {
    if let (true, Some(Value::String(id))) = (is_view, arguments.get(ID)) {
        StreamId::new(query, id)?;
    }
    Json::of(arguments).map_err(|_| Problem::internal())
}

/// A rejection is an answer, and says what it reflects like any other.
pub(super) fn refusal(error: CallError, inquiry: &Inquiry) -> Problem {
    let rejected = matches!(error, CallError::Rejected(_));
    let problem = Problem::from(error);
    if rejected { problem.reflecting(inquiry.reflects()) } else { problem }
}
