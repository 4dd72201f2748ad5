//! The OpenAPI 3.1 document of everything that is deployed, made from the manifests.
//!
//! The schemas of commands, views and answers become components. Their own `$ref`s, which count from the schema's root,
//! are rewritten to count from the document's.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::builtin::{BUILTINS, BuiltinRoute, Does, Operation};
use super::headers::none_match;
use super::{Call, Tables, json_text};
use crate::contract::{Manifest, Problem, Route, Target, placeholders, view_arguments};
use crate::model::{Json, hashed_uuid};

/// The tag of the host's own routes.
const HOST_TAG: &str = "host";

/// The headers that a command understands: name, an example, what it is for.
const COMMAND_HEADERS: [(&str, &str, &str); 3] = [
    ("Idempotency-Key", "cart-7", "A command sent again with its key takes effect once."),
    ("If-Match", "\"7\"", "The version that the aggregate must have: the ETag of an earlier reply."),
    ("Prefer", "wait=5", "How many seconds to wait for the end of a saga that the command starts."),
];
/// The header of all that persons do.
const ACTOR_HEADER: (&str, &str, &str) = ("Kontor-Actor", "ada", "Who does this. It stays in the log.");
/// The headers that an act on a saga understands.
const ACT_HEADERS: [(&str, &str, &str); 2] = [
    ACTOR_HEADER,
    ("Prefer", "wait=5", "How many seconds to wait until the saga has ended, or is parked again."),
];
const SIGNATURE_HEADER: (&str, &str, &str) = (
    "Kontor-Signature",
    "kX3v…==",
    "The Ed25519 signature of the component's SHA-256 digest in base64; of several in their order, with commas between.",
);
/// The headers that a query understands.
const QUERY_HEADERS: [(&str, &str, &str); 3] = [
    (
        "Kontor-Position",
        "42",
        "The answer reflects at least this position of an earlier reply, and waits for it.",
    ),
    ("Prefer", "wait=5", "How many seconds to wait at most for that position."),
    ("If-None-Match", "\"7-0123456789ab\"", "The ETag of an answer that was kept: 304 if it is still right."),
];

/// The document as it is sent.
pub(super) struct Document {
    text: Bytes,
    etag: Option<HeaderValue>,
}

/// `GET /openapi.json`
pub(super) fn answer(tables: &Tables, call: &Call<'_>) -> Result<Response, Problem> {
    let document = tables.openapi.get_or_init(|| {
        let manifests = tables.deployed.services().map(|service| &**service.manifest());
        let text = document(manifests).to_string();
        let etag = HeaderValue::try_from(format!("\"{}\"", hashed_uuid(&[text.as_bytes()]))).ok();
        Document { text: text.into(), etag }
    });
    let known = none_match(call.headers, document.etag.as_ref());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => json_text(StatusCode::OK, document.text.clone()),
    };
    response.headers_mut().extend(document.etag.clone().map(|etag| (header::ETAG, etag)));
    Ok(response)
}

fn document<'m>(manifests: impl Iterator<Item = &'m Manifest>) -> Value {
    let mut document = Parts::default();
    document.schemas.insert("problem".to_owned(), problem_schema());
    for manifest in manifests {
        document.tags.push(json!({"name": manifest.service, "description": manifest.description}));
        for route in &manifest.routes {
            let operation = document.operation(manifest, route);
            document.add(&route.path, &route.method.as_str().to_lowercase(), operation);
        }
    }
    document.tags.push(json!({"name": HOST_TAG, "description": "What the host itself answers."}));
    for route in &BUILTINS {
        document.add(route.path, &route.method().as_str().to_lowercase(), host_operation(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Kontor", "version": env!("CARGO_PKG_VERSION")},
        "tags": document.tags,
        "paths": document.paths,
        "components": {"schemas": document.schemas},
    })
}

fn host_operation(route: &BuiltinRoute) -> Value {
    let mut parameters: Vec<_> =
        placeholders(route.path).map(|name| parameter(name, "path", &json!({"type": "string"}))).collect();
    parameters.extend(route.parameters.iter().map(|(name, description)| {
        parameter(name, "query", &json!({"type": "string", "description": description}))
    }));
    let name = match route.does {
        Does::Answer(builtin) => format!("{builtin:?}"),
        Does::Act(act, _) => format!("saga{act:?}"),
        Does::Operate(operation, _) => format!("{operation:?}"),
        Does::Deploy => "deploy".to_owned(),
        Does::Undeploy => "undeploy".to_owned(),
    };
    let mut operation = json!({
        "operationId": format!("host.{}", name.to_lowercase()), "tags": [HOST_TAG], "summary": route.summary,
        "responses": {"200": {"description": "OK"}, "default": problem_response()},
    });
    match route.does {
        Does::Act(..) => parameters.extend(ACT_HEADERS.map(header)),
        Does::Deploy => parameters.extend([ACTOR_HEADER, SIGNATURE_HEADER].map(header)),
        Does::Operate(Operation::RollBack | Operation::DiscardMessages, _) | Does::Undeploy => {
            parameters.push(header(ACTOR_HEADER));
        }
        Does::Answer(_) | Does::Operate(..) => {}
    }
    let content = match route.does {
        Does::Act(_, body) | Does::Operate(_, body) => Some(json!({"application/json": {"schema": body()}})),
        Does::Deploy => Some(components()),
        Does::Answer(_) | Does::Undeploy => None,
    };
    if let Some(content) = content {
        operation["requestBody"] = json!({ "content": content });
    }
    operation["parameters"] = json!(parameters);
    operation
}

/// The body of a deployment. Bytes have no schema.
fn components() -> Value {
    let several = json!({"type": "object", "additionalProperties": {"type": "string", "contentMediaType": "application/wasm"}});
    json!({"application/wasm": {}, "multipart/form-data": {"schema": several}})
}

/// The document in the making.
#[derive(Default)]
struct Parts {
    tags: Vec<Value>,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Parts {
    fn add(&mut self, path: &str, method: &str, operation: Value) {
        let operations = self.paths.entry(path).or_insert_with(|| json!({}));
        operations[method] = operation;
    }

    /// Makes a schema a component and answers with a reference to it.
    fn component(&mut self, name: &str, schema: &Json) -> Value {
        let mut schema: Value = schema.read().unwrap_or(Value::Bool(true));
        rebase(&mut schema, name);
        self.schemas.insert(name.to_owned(), schema);
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn operation(&mut self, manifest: &Manifest, route: &Route) -> Value {
        match &route.target {
            Target::Command { aggregate, command } => {
                self.command(manifest, route, aggregate.as_str(), command.as_str())
            }
            Target::Query(name) => self.query(manifest, route, name.as_str()),
        }
    }

    fn command(&mut self, manifest: &Manifest, route: &Route, aggregate: &str, name: &str) -> Value {
        let kind = manifest.aggregate(aggregate);
        let command = kind.and_then(|aggregate| aggregate.command(name));
        let payload =
            command.map(|command| self.component(&format!("command.{aggregate}.{name}"), &command.payload));
        let view = kind.map(|kind| self.component(&format!("view.{aggregate}"), &kind.view));
        let mut parameters: Vec<_> = placeholders(&route.path)
            .map(|name| parameter(name, "path", &json!({"type": "string"})))
            .collect();
        parameters.extend(COMMAND_HEADERS.map(header));
        let reply = reply_schema(view.unwrap_or_else(|| json!({})));
        let ok =
            |text: &str| json!({"description": text, "content": {"application/json": {"schema": reply}}});
        json!({
            "operationId": format!("{aggregate}.{name}"), "tags": [manifest.service],
            "summary": format!("{aggregate}.{name}"), "description": command.map(|command| &command.description),
            "parameters": parameters,
            "requestBody": {"content": {"application/json": {"schema": payload}}},
            "responses": {
                "200": ok("Done."), "201": ok("The aggregate was made."),
                "202": ok("Done, and a saga that it started goes on: see Location."), "default": problem_response(),
            },
        })
    }

    fn query(&mut self, manifest: &Manifest, route: &Route, name: &str) -> Value {
        let service = &manifest.service;
        let query = manifest.query(name);
        let (description, arguments, answer) = match (query, manifest.aggregate(name)) {
            (Some(query), _) => {
                let arguments = query.arguments.read().unwrap_or_default();
                let answer = self.component(&format!("answer.{service}.{name}"), &query.answer);
                (query.description.as_str(), arguments, answer)
            }
            (None, Some(aggregate)) => {
                let view = self.component(&format!("view.{name}"), &aggregate.view);
                (aggregate.description.as_str(), view_arguments(), view)
            }
            (None, None) => ("", json!({}), json!({})),
        };
        let parameters = self.arguments(&format!("arguments.{service}.{name}"), route, arguments);
        json!({
            "operationId": format!("{service}.{name}.{}", operation_suffix(&route.path)), "tags": [service],
            "summary": name, "description": description, "parameters": parameters,
            "responses": {
                "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
                "304": {"description": "The answer that the caller has kept is still right."},
                "default": problem_response(),
            },
        })
    }

    /// The members of the arguments' schema as parameters of the path or the query string.
    fn arguments(&mut self, component: &str, route: &Route, mut schema: Value) -> Vec<Value> {
        rebase(&mut schema, component);
        let required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        if schema.get("$defs").is_some() {
            self.schemas.insert(component.to_owned(), schema);
        }
        let in_path = |name: &str| placeholders(&route.path).any(|placeholder| placeholder == name);
        let mut parameters: Vec<_> = properties
            .iter()
            .map(|(name, property)| {
                let mut parameter = parameter(name, if in_path(name) { "path" } else { "query" }, property);
                parameter["required"] =
                    json!(in_path(name) || required.iter().any(|required| required == name));
                parameter
            })
            .collect();
        parameters.extend(QUERY_HEADERS.map(header));
        parameters
    }
}

/// Tells the operations of one query on several paths apart: `orders-id` of `/orders/{id}`.
fn operation_suffix(path: &str) -> String {
    let words = path.split(['/', '{', '}']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// Lets the references in a schema count from its place in the document.
fn rebase(schema: &mut Value, component: &str) {
    match schema {
        Value::Object(members) => {
            members.remove("$schema");
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "$ref" && text.starts_with('#') => {
                        *text = format!("#/components/schemas/{component}{}", &text[1..]);
                    }
                    other => rebase(other, component),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, component)),
        _ => {}
    }
}

fn parameter(name: &str, place: &str, schema: &Value) -> Value {
    let description = schema["description"].as_str();
    let mut parameter = json!({"name": name, "in": place, "required": place == "path", "schema": schema});
    if let Some(description) = description {
        parameter["description"] = json!(description);
    }
    parameter
}

fn header((name, example, description): (&str, &str, &str)) -> Value {
    let schema = json!({"type": "string", "examples": [example], "description": description});
    parameter(name, "header", &schema)
}

fn reply_schema(view: Value) -> Value {
    let saga = json!({
        "type": "object", "required": ["id", "state"],
        "properties": {"id": {"type": "string"}, "state": {"type": "string"}},
    });
    json!({
        "type": "object", "required": ["id", "version", "position", "events", "state"],
        "properties": {
            "id": {"type": "string"}, "version": {"type": "integer"}, "position": {"type": "integer"},
            "events": {"type": "array", "items": {"type": "string"}}, "state": view,
            "saga": saga,
        },
    })
}

fn problem_response() -> Value {
    json!({
        "description": "Why not.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}},
    })
}

/// What [`Problem`] looks like outside (RFC 9457).
fn problem_schema() -> Value {
    let violation = json!({
        "type": "object", "properties": {"pointer": {"type": "string"}, "message": {"type": "string"}},
    });
    json!({
        "type": "object", "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "description": "Stable: tell problems apart by it."},
            "details": {"type": "object", "description": "The facts behind the code."},
            "errors": {"type": "array", "items": violation},
            "expected_version": {"type": "integer"}, "actual_version": {"type": "integer"},
            "position": {"type": "integer", "description": "How far a query could have seen."},
            "report": {"type": "object", "description": "What the gates of a deployment found."},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::fixtures::manifest;

    /// All references in a value.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document([&manifest()].into_iter());
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(
            found.contains(&"#/components/schemas/command.order.create/$defs/Line".to_owned()),
            "{found:?}"
        );
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }

    #[test]
    fn a_command_has_its_payload_and_its_headers() {
        let document = document([&manifest()].into_iter());
        let operation = &document["paths"]["/orders/{id}"]["put"];
        assert_eq!(operation["operationId"], "order.update");
        assert_eq!(operation["tags"], json!(["order"]));
        let payload = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(payload, "#/components/schemas/command.order.update");
        assert_eq!(operation["parameters"][0]["name"], "id");
        assert_eq!(operation["parameters"][0]["in"], "path");
    }

    #[test]
    fn a_query_has_its_arguments_where_they_stand() {
        let document = document([&manifest()].into_iter());
        let parameters = &document["paths"]["/orders/{id}/details"]["get"]["parameters"];
        assert_eq!((&parameters[0]["name"], &parameters[0]["in"]), (&json!("id"), &json!("path")));
        assert_eq!((&parameters[1]["name"], &parameters[1]["in"]), (&json!("limit"), &json!("query")));
        assert_eq!(parameters[1]["description"], "How many.");
        assert_eq!(parameters[1]["required"], false);
    }

    #[test]
    fn an_act_of_a_person_has_its_reason_and_its_actor() {
        let document = document([&manifest()].into_iter());
        let operation = &document["paths"]["/admin/sagas/{id}/resolve"]["post"];
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["reason"]));
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let names: Vec<_> = parameters.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["id", "Kontor-Actor", "Prefer"]);
    }

    #[test]
    fn a_deployment_has_its_components_and_its_options() {
        let document = document([&manifest()].into_iter());
        let operation = &document["paths"]["/admin/plugins"]["put"];
        let content = operation["requestBody"]["content"].as_object().unwrap();
        assert_eq!(content.keys().collect::<Vec<_>>(), ["application/wasm", "multipart/form-data"]);
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let names: Vec<_> = parameters.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let options =
            ["dry-run", "note", "sample", "allow-breaking", "grant", "Kontor-Actor", "Kontor-Signature"];
        assert_eq!(names, options);
    }

    #[test]
    fn operations_have_unique_names() {
        let document = document([&manifest()].into_iter());
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|operations| operations.as_object().unwrap().values());
        let mut names: Vec<_> =
            operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
