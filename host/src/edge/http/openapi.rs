//! The OpenAPI 3.1 document of everything that is deployed, made from the manifests and from the host's own
//! rows.
//!
//! The schemas of commands, views and answers become components. Their own `$ref`s, which count from the
//! schema's root, are rewritten to count from the document's.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::header_docs::{COMMAND_HEADERS, Header, IF_NONE_MATCH, KONTOR_POSITION, QUERY_HEADERS};
use super::headers::none_match;
use super::host_routes::RouteSet;
use super::json_text;
use super::route::{Content, HostRoute, JSON, Request};
use crate::api::CommandReply;
use crate::contract::{
    Access, Manifest, PROBLEM_JSON, Problem, ProblemBody, Route, Target, placeholders, view_arguments,
};
use crate::identity::SESSION_COOKIE;
use crate::model::{Json, OPERATOR, Role, hashed_uuid};

/// The tag of the host's own routes.
const HOST_TAG: &str = "host";

/// The names of the ways to sign in.
const BEARER: &str = "token";
const SESSION: &str = "session";

/// The path of the components in the document.
const COMPONENTS: &str = "/components/schemas";

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/openapi.json", "api.document", answer)
            .anyone()
            .summary("Returns this API as an OpenAPI 3.1 document.")
            .statuses(&[StatusCode::OK, StatusCode::NOT_MODIFIED])
            .headers(&[IF_NONE_MATCH])
            .json::<Json>(),
    ]
}

/// The document as it is sent.
pub(super) struct Document {
    text: Bytes,
    etag: Option<HeaderValue>,
}

async fn answer(request: Request) -> Result<Response, Problem> {
    let tables = request.tables();
    let document = tables.openapi.get_or_init(|| {
        let manifests = tables.deployed.services().map(|service| &**service.manifest());
        let text = document(request.server().routes, manifests).to_string();
        let etag = HeaderValue::try_from(format!("\"{}\"", hashed_uuid(&[text.as_bytes()]))).ok();
        Document { text: text.into(), etag }
    });
    let known = none_match(request.headers(), document.etag.as_ref());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => json_text(StatusCode::OK, document.text.clone()),
    };
    response.headers_mut().extend(document.etag.clone().map(|etag| (header::ETAG, etag)));
    Ok(response)
}

fn document<'m>(routes: RouteSet, manifests: impl Iterator<Item = &'m Manifest>) -> Value {
    let mut document = Parts::new();
    for manifest in manifests {
        document.tags.push(json!({"name": manifest.service, "description": manifest.description}));
        for route in &manifest.routes {
            let mut operation = document.operation(manifest, route);
            operation["security"] = security(&route.access);
            document.add(&route.path, &route.method.as_str().to_lowercase(), operation);
        }
    }
    document.tags.push(json!({"name": HOST_TAG, "description": "The host's own routes."}));
    for route in routes.rows() {
        let mut operation = document.host_operation(route);
        operation["security"] = security(&route.access);
        document.add(route.path, &route.method.as_str().to_lowercase(), operation);
    }
    document.finish()
}

/// The document while it is made.
struct Parts {
    tags: Vec<Value>,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
    /// The components of the host's own types in bodies of requests.
    requests: SchemaGenerator,
    /// And in replies.
    replies: SchemaGenerator,
    problem: Value,
}

impl Parts {
    fn new() -> Self {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = COMPONENTS.into();
        let mut replies = settings.clone().for_serialize().into_generator();
        let problem = replies.subschema_for::<ProblemBody>().to_value();
        Self {
            tags: Vec::new(),
            paths: Map::new(),
            schemas: Map::new(),
            requests: settings.for_deserialize().into_generator(),
            replies,
            problem,
        }
    }

    fn finish(mut self) -> Value {
        self.schemas.extend(self.requests.take_definitions(true));
        self.schemas.extend(self.replies.take_definitions(true));
        json!({
            "openapi": "3.1.0",
            "info": {"title": "Kontor", "version": env!("CARGO_PKG_VERSION")},
            "tags": self.tags,
            "paths": self.paths,
            "components": {"schemas": self.schemas, "securitySchemes": security_schemes()},
        })
    }

    fn host_operation(&mut self, route: &HostRoute) -> Value {
        let path = placeholders(route.path);
        let mut parameters: Vec<_> =
            path.map(|name| parameter(name, "path", &json!({"type": "string"}))).collect();
        let query = route.query.iter().flat_map(|query| &query.properties);
        parameters.extend(query.map(|(name, schema)| parameter(name, "query", schema)));
        parameters.extend(route.headers.iter().chain([&KONTOR_POSITION]).map(header));
        let replied = content(&mut self.replies, &route.reply);
        let mut responses = Map::new();
        for status in &route.statuses {
            let mut response = json!({"description": status.canonical_reason().unwrap_or_default()});
            if *status != StatusCode::NOT_MODIFIED {
                response["content"] = replied.clone();
            }
            responses.insert(status.as_str().to_owned(), response);
        }
        responses.insert("default".to_owned(), self.problem_response());
        let mut operation = json!({
            "operationId": format!("{HOST_TAG}.{}", route.name), "tags": [HOST_TAG], "summary": route.summary,
            "parameters": parameters, "responses": responses,
        });
        if !route.body.is_empty() {
            operation["requestBody"] = json!({"content": content(&mut self.requests, &route.body)});
        }
        operation
    }

    fn problem_response(&self) -> Value {
        json!({
            "description": "The request failed. `code` says why.",
            "content": {PROBLEM_JSON: {"schema": self.problem}},
        })
    }

    /// Returns the schema of the reply to a command of an aggregate with this view.
    fn reply_schema(&mut self, view: Value) -> Value {
        let reply = self.replies.subschema_for::<CommandReply>().to_value();
        json!({"allOf": [reply, {"type": "object", "properties": {"state": view}}]})
    }

    fn add(&mut self, path: &str, method: &str, operation: Value) {
        let operations = self.paths.entry(path).or_insert_with(|| json!({}));
        operations[method] = operation;
    }

    /// Adds a schema as a component and returns a reference to it.
    fn component(&mut self, name: &str, schema: &Json) -> Value {
        let mut schema: Value = schema.read().unwrap_or(Value::Bool(true));
        rebase(&mut schema, name);
        self.schemas.insert(name.to_owned(), schema);
        json!({"$ref": format!("#{COMPONENTS}/{name}")})
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
        parameters.extend(COMMAND_HEADERS.iter().map(header));
        let reply = self.reply_schema(view.unwrap_or_else(|| json!({})));
        let ok = |text: &str| json!({"description": text, "content": {JSON: {"schema": reply}}});
        json!({
            "operationId": format!("{aggregate}.{name}"), "tags": [manifest.service],
            "summary": format!("{aggregate}.{name}"),
            "description": command.map(|command| &command.description),
            "parameters": parameters,
            "requestBody": {"content": {JSON: {"schema": payload}}},
            "responses": {
                "200": ok("The command was accepted."), "201": ok("The command created the aggregate."),
                "202": ok("The command was accepted and started a saga, which is at `Location`."),
                "default": self.problem_response(),
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
                "200": {"description": "The answer.", "content": {JSON: {"schema": answer}}},
                "304": {"description": "The stored answer is still right."},
                "default": self.problem_response(),
            },
        })
    }

    /// Returns the members of the arguments' schema as parameters of the path or the query string.
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
        parameters.extend(QUERY_HEADERS.iter().map(header));
        parameters
    }
}

/// Returns the ways to sign in.
fn security_schemes() -> Value {
    let bearer = "A token of `kontor token new`, or a JWT of a configured issuer. Without the section \
                  `[auth]` no request needs one.";
    let session = "The session of a browser that has signed in at `/auth/sign-in`. A request with an effect \
                   needs the header `Kontor-CSRF` as well.";
    json!({
        BEARER: {"type": "http", "scheme": "bearer", "description": bearer},
        SESSION: {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": session},
    })
}

/// Returns the requirements of an operation: the roles of which the caller must have one. An operator may use
/// every route.
fn security(access: &Access) -> Value {
    let with = |roles: &[&str]| json!([{BEARER: roles}, {SESSION: roles}]);
    match access {
        Access::Anyone => json!([]),
        Access::SignedIn => with(&[]),
        Access::Roles(roles) => with(&roles.iter().map(Role::as_str).chain([OPERATOR]).collect::<Vec<_>>()),
    }
}

/// Returns a suffix that distinguishes the operations of one query on several paths: `orders-id` for
/// `/orders/{id}`.
fn operation_suffix(path: &str) -> String {
    let words = path.split(['/', '{', '}']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// Rewrites the references in a schema to count from the root of the document.
fn rebase(schema: &mut Value, component: &str) {
    match schema {
        Value::Object(members) => {
            members.remove("$schema");
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "$ref" && text.starts_with('#') => {
                        *text = format!("#{COMPONENTS}/{component}{}", &text[1..]);
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

fn header(header: &Header) -> Value {
    let schema = json!({"type": "string", "examples": [header.example], "description": header.meaning});
    parameter(header.name, "header", &schema)
}

fn content(schemas: &mut SchemaGenerator, content: &[Content]) -> Value {
    let media = content.iter().map(|(media_type, schema)| {
        let schema = schema(schemas);
        ((*media_type).to_owned(), json!({"schema": schema}))
    });
    media.collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod fuzz {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::Schemas;
    use crate::contract::fuzz::manifests;

    proptest! {
        #[test]
        fn the_document_has_every_route_of_a_manifest_that_is_served(manifest in manifests()) {
            let served = manifest.check().is_ok() && Schemas::of(&manifest).is_ok();
            let mut document = Parts::new();
            for route in manifest.routes.iter().filter(|_| served) {
                let operation = document.operation(&manifest, route);
                prop_assert!(operation["responses"]["default"].is_object(), "{}: {}", route.path, operation);
            }
        }
    }
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
        let document = document(RouteSet::All, [&manifest()].into_iter());
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
        let document = document(RouteSet::All, [&manifest()].into_iter());
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
        let document = document(RouteSet::All, [&manifest()].into_iter());
        let parameters = &document["paths"]["/orders/{id}/details"]["get"]["parameters"];
        assert_eq!((&parameters[0]["name"], &parameters[0]["in"]), (&json!("id"), &json!("path")));
        assert_eq!((&parameters[1]["name"], &parameters[1]["in"]), (&json!("limit"), &json!("query")));
        assert_eq!(parameters[1]["description"], "How many.");
        assert_eq!(parameters[1]["required"], false);
    }

    #[test]
    fn an_act_of_an_operator_has_its_reason_and_its_actor() {
        let document = document(RouteSet::All, [&manifest()].into_iter());
        let operation = &document["paths"]["/admin/sagas/{id}/resolve"]["post"];
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body, &json!({"$ref": "#/components/schemas/ResolveRequest"}));
        assert_eq!(document["components"]["schemas"]["ResolveRequest"]["required"], json!(["reason"]));
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let names: Vec<_> = parameters.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["id", "Kontor-Actor", "Prefer", "Kontor-Position"]);
    }

    #[test]
    fn a_deployment_has_its_components_and_its_options() {
        let document = document(RouteSet::All, [&manifest()].into_iter());
        let operation = &document["paths"]["/admin/plugins"]["put"];
        let content = operation["requestBody"]["content"].as_object().unwrap();
        assert_eq!(content.keys().collect::<Vec<_>>(), ["application/wasm", "multipart/form-data"]);
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let names: Vec<_> = parameters.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let options = ["allow-breaking", "dry-run", "grant", "note", "sample"];
        assert_eq!(names, [&options[..], &["Kontor-Actor", "Kontor-Signature", "Kontor-Position"]].concat());
    }

    #[test]
    fn a_host_route_has_the_status_and_the_type_of_its_reply() {
        let document = document(RouteSet::All, [&manifest()].into_iter());
        let responses = &document["paths"]["/admin/projections/{service}/replay"]["post"]["responses"];
        let schema = &responses["202"]["content"]["application/json"]["schema"];
        assert_eq!(schema, &json!({"$ref": "#/components/schemas/ProjectionOverview"}));
        assert_eq!(responses["200"], Value::Null);
    }

    #[test]
    fn a_snapshot_holds_the_document() {
        let document = document(RouteSet::All, [&manifest()].into_iter());
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        expect_test::expect_file!["snapshots/openapi.json"].assert_eq(&text);
    }

    #[test]
    fn operations_have_unique_names() {
        let document = document(RouteSet::All, [&manifest()].into_iter());
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
