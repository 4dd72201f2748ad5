//! The OpenAPI 3.1 document of everything that is deployed, made from the manifests and from the host's own
//! rows.

mod components;
mod replies;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use self::components::{Components, spell_out, spell_out_schema, without_null};
use self::replies::Responses;
use super::header_docs::replies::{ETAG, LINK, LOCATION, PREFERENCE_APPLIED};
use super::header_docs::{COMMAND_HEADERS, Header, IF_NONE_MATCH, KONTOR_POSITION, QUERY_HEADERS};
use super::headers::none_match;
use super::host_routes::RouteSet;
use super::json_text;
use super::route::{Content, HostRoute, JSON, Request};
use super::schemas;
use crate::api::{CommandReply, SagaRef};
use crate::contract::{
    Access, Arguments, Kind, Manifest, Method, Problem, ProblemBody, Route, Schema, Target, placeholders,
    view_arguments,
};
use crate::identity::SESSION_COOKIE;
use crate::model::{ID_PATTERN, Json, MAX_ID_LENGTH, OPERATOR, Role, hashed_uuid};

/// The tag of the host's own routes.
const HOST_TAG: &str = "host";

/// The names of the ways to sign in.
const BEARER: &str = "token";
const SESSION: &str = "session";

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
        let authenticates = request.server().host.identity.authenticates();
        let text = document(request.server().routes, authenticates, manifests).to_string();
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

/// `authenticates`: whether the host identifies callers. If not, each request is the operator's.
fn document<'m>(
    routes: RouteSet,
    authenticates: bool,
    manifests: impl Iterator<Item = &'m Manifest>,
) -> Value {
    let mut document = Parts::new();
    let security = |access| if authenticates { security(access) } else { json!([]) };
    // The host's own come first: their ids do not depend on the services.
    for route in routes.rows() {
        let mut operation = document.host_operation(route);
        operation["security"] = security(&route.access);
        document.add(route.path, route.method, operation);
    }
    for manifest in manifests {
        document.tags.push(json!({"name": manifest.service, "description": manifest.description}));
        for route in &manifest.routes {
            let mut operation = document.operation(manifest, route);
            operation["security"] = security(&route.access);
            document.add(&route.path, route.method, operation);
        }
    }
    document.tags.push(json!({"name": HOST_TAG, "description": "The host's own routes."}));
    document.finish()
}

/// The document while it is made.
struct Parts {
    tags: Vec<Value>,
    paths: Map<String, Value>,
    /// The ids of the operations, as a generator of code may write them: with one kind of separator.
    ids: HashSet<String>,
    components: Components,
    /// The components of the host's own types in bodies of requests.
    requests: SchemaGenerator,
    /// And in replies.
    replies: SchemaGenerator,
}

impl Parts {
    fn new() -> Self {
        let mut settings = schemas::settings();
        settings.definitions_path = components::PATH.into();
        Self {
            tags: Vec::new(),
            paths: Map::new(),
            ids: HashSet::new(),
            components: Components::default(),
            replies: settings.clone().for_serialize().into_generator(),
            requests: settings.for_deserialize().into_generator(),
        }
    }

    fn finish(mut self) -> Value {
        let problem = self.replies.subschema_for::<ProblemBody>().to_value();
        let mut schemas = self.components.into_schemas();
        schemas.extend(self.requests.take_definitions(true));
        schemas.extend(self.replies.take_definitions(true));
        schemas.values_mut().for_each(spell_out_schema);
        let mut paths = self.paths.into();
        spell_out(&mut paths);
        json!({
            "openapi": "3.1.0",
            "info": {"title": "Kontor", "version": env!("CARGO_PKG_VERSION")},
            "servers": [{"url": "/", "description": "The host that returned this document."}],
            "tags": self.tags,
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": replies::problems(&problem),
                "headers": replies::headers(),
                "securitySchemes": security_schemes(),
            },
        })
    }

    /// Adds an operation, whose id is made unique by its path and its method.
    fn add(&mut self, path: &str, method: Method, mut operation: Value) {
        let method = method.as_str().to_lowercase();
        let id = operation["operationId"].as_str().unwrap_or_default();
        let suffix = words(path);
        let with_path = if id.ends_with(&suffix) { id.to_owned() } else { format!("{id}.{suffix}") };
        let with_method = format!("{with_path}.{method}");
        let numbered = (2..).map(|number| format!("{with_method}.{number}"));
        let mut names = [id.to_owned(), with_path, with_method.clone()].into_iter().chain(numbered);
        let unique = names.find(|name| self.ids.insert(name.replace('.', "-")));
        operation["operationId"] = json!(unique);
        let operations = self.paths.entry(path).or_insert_with(|| json!({}));
        operations[method] = operation;
    }

    fn host_operation(&mut self, route: &HostRoute) -> Value {
        let id = if route.ids { id_schema() } else { text_schema() };
        let path = placeholders(route.path);
        let mut parameters: Vec<_> = path.map(|name| parameter(name, "path", id.clone())).collect();
        let query = route.query.iter().flat_map(|query| &query.properties);
        parameters.extend(query.map(|(name, schema)| parameter(name, "query", without_null(schema.clone()))));
        parameters.extend(route.headers.iter().chain([&KONTOR_POSITION]).map(header_parameter));
        let replied = content(&mut self.replies, &route.reply);
        let mut responses = Responses::of_host(route);
        for status in &route.statuses {
            let headers: &[&Header] = match *status {
                StatusCode::SEE_OTHER => &[&LOCATION],
                StatusCode::OK | StatusCode::NOT_MODIFIED if has(route.headers, &IF_NONE_MATCH) => &[&ETAG],
                _ => &[],
            };
            let description = status.canonical_reason().unwrap_or_default();
            responses.add(*status, description, headers, Some(&replied));
        }
        let mut operation = json!({
            "operationId": format!("{HOST_TAG}.{}", route.name), "tags": [HOST_TAG], "summary": route.summary,
            "parameters": parameters, "responses": responses.into_value(),
        });
        if !route.body.is_empty() {
            let content = content(&mut self.requests, &route.body);
            operation["requestBody"] = json!({"required": route.needs_body(), "content": content});
        }
        operation
    }

    /// Returns the schema of the reply to a command of an aggregate with this view: [`CommandReply`] with the
    /// view as its `state`.
    fn reply_schema(&mut self, aggregate: &str, view: &Value) -> Value {
        let mut settings = schemas::settings().for_serialize();
        settings.definitions_path = components::PATH.into();
        let mut generator = settings.into_generator();
        let mut reply = generator.root_schema_for::<CommandReply>().to_value();
        // It refers to a component.
        self.replies.subschema_for::<SagaRef>();
        if let Some(members) = reply.as_object_mut() {
            members.retain(|name, _| !["$defs", "$schema", "title", "components"].contains(&name.as_str()));
        }
        let description = reply["properties"]["state"]["description"].take();
        reply["properties"]["state"] = json!({"description": description, "anyOf": [view, {"type": "null"}]});
        self.components.insert(&format!("reply.{aggregate}"), reply)
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
        let view = kind.map(|kind| self.components.of_manifest(&format!("view.{aggregate}"), &kind.view));
        let reply = self.reply_schema(aggregate, &view.unwrap_or(Value::Bool(true)));
        let reply = json!({JSON: {"schema": reply}});
        let mut parameters: Vec<_> =
            placeholders(&route.path).map(|name| parameter(name, "path", id_schema())).collect();
        parameters.extend(COMMAND_HEADERS.iter().map(header_parameter));
        let mut responses = Responses::of_command();
        for (status, description, headers) in [
            (StatusCode::OK, "The command was accepted.", &[][..]),
            (StatusCode::CREATED, "The command created the aggregate.", &[&LOCATION]),
            (
                StatusCode::ACCEPTED,
                "The command was accepted and started a saga, which is at `Location`.",
                &[&LOCATION, &LINK],
            ),
        ] {
            let headers = [headers, &[&ETAG, &PREFERENCE_APPLIED]].concat();
            responses.add(status, description, &headers, Some(&reply));
        }
        let mut operation = json!({
            "operationId": format!("{aggregate}.{name}"), "tags": [manifest.service],
            "summary": format!("{aggregate}.{name}"),
            "description": command.map(|command| &command.description),
            "parameters": parameters, "responses": responses.into_value(),
        });
        if let Some(command) = command {
            let (needed, has_members) = body_of(&command.payload);
            // Many clients cannot send a body with DELETE, and an empty one has nothing to say.
            if route.method != Method::Delete || has_members {
                let payload =
                    self.components.of_manifest(&format!("command.{aggregate}.{name}"), &command.payload);
                operation["requestBody"] =
                    json!({"required": needed, "content": {JSON: {"schema": payload}}});
            }
        }
        operation
    }

    fn query(&mut self, manifest: &Manifest, route: &Route, name: &str) -> Value {
        let service = &manifest.service;
        let query = manifest.query(name);
        let (description, arguments, answer) = match (query, manifest.aggregate(name)) {
            (Some(query), _) => {
                let answer = self.components.of_manifest(&format!("answer.{service}.{name}"), &query.answer);
                let arguments = query.arguments.read().unwrap_or_default();
                (query.description.as_str(), arguments, answer)
            }
            (None, Some(aggregate)) => {
                let view = self.components.of_manifest(&format!("view.{name}"), &aggregate.view);
                let mut arguments = view_arguments();
                arguments["properties"] = json!({"id": id_schema()});
                (aggregate.description.as_str(), arguments, view)
            }
            (None, None) => ("", json!({}), json!({})),
        };
        let parameters = self.arguments(&format!("arguments.{service}.{name}"), route, arguments);
        let mut responses = Responses::of_query();
        let answer = json!({JSON: {"schema": answer}});
        let headers = [&ETAG, &PREFERENCE_APPLIED];
        responses.add(StatusCode::OK, "The answer.", &headers, Some(&answer));
        responses.add(StatusCode::NOT_MODIFIED, "The stored answer is still right.", &headers, None);
        json!({
            "operationId": format!("{service}.{name}.{}", words(&route.path)), "tags": [service],
            "summary": name, "description": description, "parameters": parameters,
            "responses": responses.into_value(),
        })
    }

    /// Returns the members of the arguments' schema as parameters of the path or the query string.
    fn arguments(&mut self, component: &str, route: &Route, schema: Value) -> Vec<Value> {
        let arguments = Arguments::compile(&schema);
        let kind = |name: &str| arguments.as_ref().map_or(Kind::Text, |known| known.kind(name).clone());
        let required: HashSet<String> =
            schema["required"].as_array().into_iter().flatten().map(text).collect();
        let mut properties = self.components.properties(component, schema);
        let mut parameters = Vec::new();
        for name in placeholders(&route.path) {
            let schema = properties.remove(name).unwrap_or_else(text_schema);
            parameters.push(argument(name, "path", &kind(name), with_a_character(schema)));
        }
        for (name, schema) in properties {
            let kind = kind(&name);
            // An empty list is one without parameters.
            let may_be_empty = matches!(kind, Kind::List(_)) && schema["minItems"].as_u64().unwrap_or(0) == 0;
            let mut parameter = argument(&name, "query", &kind, schema);
            parameter["required"] = json!(required.contains(&name) && !may_be_empty);
            parameters.push(parameter);
        }
        parameters.extend(QUERY_HEADERS.iter().map(header_parameter));
        parameters
    }
}

/// Returns whether a command needs a body, because `{}` is not one of its payloads, and whether its payloads
/// have members.
fn body_of(payload: &Json) -> (bool, bool) {
    let needed = Schema::of(payload).is_ok_and(|schema| schema.check(&json!({})).is_err());
    let schema: Value = payload.read().unwrap_or_default();
    let has_properties = schema["properties"].as_object().is_some_and(|members| !members.is_empty());
    (needed, needed || has_properties || schema["additionalProperties"] != false)
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

/// Returns a suffix that distinguishes the operations of one name on several paths: `orders-id` for
/// `/orders/{id}`.
fn words(path: &str) -> String {
    let words = path.split(['/', '{', '}']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

fn has(headers: &[Header], wanted: &Header) -> bool {
    headers.iter().any(|header| header.name == wanted.name)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Returns the schema of a part of a path.
fn text_schema() -> Value {
    json!({"type": "string", "minLength": 1})
}

/// Returns the schema of the id of an aggregate.
fn id_schema() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH, "pattern": ID_PATTERN})
}

/// Returns the schema of a part of a path, which is never empty.
fn with_a_character(mut schema: Value) -> Value {
    if schema["type"] == "string" && schema["minLength"].as_u64().unwrap_or(0) == 0 {
        schema["minLength"] = json!(1);
    }
    schema
}

/// Returns an argument of a query as a parameter. One with a structure is written as JSON.
fn argument(name: &str, place: &str, kind: &Kind, schema: Value) -> Value {
    let mut parameter = parameter(name, place, without_null(schema));
    if *kind == Kind::Json {
        let schema = parameter["schema"].take();
        parameter["content"] = json!({JSON: {"schema": schema}});
        parameter.as_object_mut().map(|members| members.remove("schema"));
    }
    parameter
}

fn parameter(name: &str, place: &str, mut schema: Value) -> Value {
    let description = schema.as_object_mut().and_then(|members| members.remove("description"));
    let mut parameter = json!({"name": name, "in": place, "required": place == "path", "schema": schema});
    if let Some(description) = description {
        parameter["description"] = description;
    }
    parameter
}

fn header_parameter(header: &Header) -> Value {
    let mut parameter = parameter(header.name, "header", header.schema());
    parameter["description"] = json!(header.meaning);
    parameter
}

fn content(schemas: &mut SchemaGenerator, content: &[Content]) -> Value {
    let media = content.iter().map(|(media_type, schema)| {
        let schema = schema(schemas);
        ((*media_type).to_owned(), json!({"schema": schema}))
    });
    media.collect::<Map<_, _>>().into()
}
