//! The one check of payloads and arguments: from the text of a body to JSON that follows its schema.

use serde_json::{Value, json};

use super::{Manifest, Problem, ProblemCode, Schema};
use crate::model::Json;

/// The argument of the query for an aggregate's view.
const ID: &str = "id";

/// Returns the schema of the arguments of a query, which may be the query for the view of an aggregate; none
/// if there is no such query. An error is a sentence that says why the schema cannot be used.
pub(crate) fn arguments_schema(manifest: &Manifest, query: &str) -> Option<Result<Value, String>> {
    match manifest.query(query) {
        Some(query) => Some(query.arguments.read().map_err(|error| error.to_string())),
        None => manifest.aggregate(query).map(|_| Ok(view_arguments())),
    }
}

/// Returns the schema of the arguments of the query for an aggregate's view.
pub(crate) fn view_arguments() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": [ID],
        "properties": {ID: {"type": "string"}},
    })
}

/// Checks the body of one of the host's own routes against its schema. An empty body stands for `{}`.
pub(crate) fn checked(schema: &Schema, body: &[u8]) -> Result<Json, Problem> {
    let json = payload(body)?;
    let rewritten = schema.check_text(&json).map_err(Problem::invalid_payload)?;
    Ok(rewritten.unwrap_or(json))
}

/// Returns the JSON text of a body unchanged. An empty body stands for `{}`. Dispatch checks it against the
/// schema of its command.
pub(crate) fn payload(body: &[u8]) -> Result<Json, Problem> {
    Json::parse(json_text(body)?.to_owned()).map_err(no_json)
}

/// Returns the arguments of a query from a body. An empty body stands for `{}`.
pub(crate) fn arguments(body: &[u8]) -> Result<Value, Problem> {
    let normal = payload(body)?.normalized();
    Ok(normal.map_err(|error| Problem::invalid_arguments(vec![error.into()]))?.value)
}

/// Returns the text of a body that should be JSON. An empty body stands for `{}`.
fn json_text(body: &[u8]) -> Result<&str, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    std::str::from_utf8(body).map_err(|error| invalid_json(format!("The body is not UTF-8: {error}.")))
}

fn no_json(error: serde_json::Error) -> Problem {
    invalid_json(format!("The body is not JSON: {error}."))
}

fn invalid_json(detail: String) -> Problem {
    Problem::new(ProblemCode::InvalidJson, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::compile(&json!({"type": "object", "properties": {"quantity": {"type": "integer"}}})).unwrap()
    }

    #[test]
    fn a_payload_keeps_its_text() {
        for (body, text) in [
            ("", "{}"),
            (" {\"quantity\" : 1}\n", "{\"quantity\" : 1}"),
            ("{\"quantity\": 1.0}", "{\"quantity\":1}"),
        ] {
            assert_eq!(checked(&schema(), body.as_bytes()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_payload_against_its_schema_is_refused() {
        for (body, status, code) in [
            ("{\"quantity\": 1,}", 400, "invalid-json"),
            ("[] []", 400, "invalid-json"),
            ("{\"quantity\": \"x\"}", 422, "invalid-payload"),
            ("[]", 422, "invalid-payload"),
            ("{\"quantity\": 1, \"quantity\": 2}", 422, "invalid-payload"),
        ] {
            let problem = checked(&schema(), body.as_bytes()).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code), "{body}");
        }
        assert!(payload(b"{\"a\": \"\xff\"}").is_err());
    }
}
