//! The route table: which method on which path is which command, query or page of the host. Made from the manifests of
//! one deployed set, together with the compiled schemas, so that a request only looks things up.

use std::collections::BTreeMap;

use axum::http::{self, HeaderValue};
use matchit::Params;

use super::action::{Action, action_of};
use super::builtin::BUILTINS;
use crate::edge::metrics::RequestMetrics;
use crate::manifest::{Manifest, Method};
use crate::model::ServiceName;

/// The owner of the host's own routes, as an error names it.
const HOST: &str = "the host";

/// Why a set of services cannot be served together.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{owner} cannot have the route {method} {path}: {reason}")]
pub struct RouteError {
    owner: ServiceName,
    method: Method,
    path: String,
    reason: String,
}

/// All routes of one deployed set.
pub struct RouteTable {
    paths: matchit::Router<Path>,
}

/// Everything on one path.
struct Path {
    endpoints: Vec<Endpoint>,
    allow: HeaderValue,
}

/// One method on one path.
pub(super) struct Endpoint {
    owner: ServiceName,
    method: Method,
    pub(super) path: String,
    pub(super) action: Action,
    pub(super) metrics: RequestMetrics,
}

/// What the table has for a method and a path.
pub(super) enum Found<'t, 'p> {
    Endpoint(&'t Endpoint, Params<'t, 'p>),
    /// The path is known, and these are its methods.
    OtherMethod(&'t HeaderValue),
    Nothing,
}

impl RouteTable {
    /// Compiles the routes and schemas of all services together with the host's own routes.
    pub fn new<'m>(manifests: impl IntoIterator<Item = &'m Manifest>) -> Result<Self, RouteError> {
        let mut by_path: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
        let builtins =
            BUILTINS.iter().map(|route| endpoint(&HOST.into(), route.method(), route.path, route.action()));
        let services = manifests.into_iter().flat_map(endpoints_of);
        for endpoint in builtins.chain(services) {
            let endpoint = endpoint?;
            let same_path = by_path.entry(endpoint.path.clone()).or_default();
            if let Some(taken) = same_path.iter().find(|other| other.method == endpoint.method) {
                return Err(endpoint.refused(format!("{} already has it", taken.owner)));
            }
            same_path.push(endpoint);
        }
        let mut paths = matchit::Router::new();
        for (path, endpoints) in by_path {
            insert(&mut paths, path, endpoints)?;
        }
        Ok(Self { paths })
    }

    /// HEAD is answered by GET.
    pub(super) fn find<'t, 'p>(&'t self, method: &http::Method, path: &'p str) -> Found<'t, 'p> {
        let Ok(found) = self.paths.at(path) else {
            return Found::Nothing;
        };
        let method = if method == http::Method::HEAD { &http::Method::GET } else { method };
        let mut endpoints = found.value.endpoints.iter();
        match endpoints.find(|endpoint| endpoint.method.as_str() == method.as_str()) {
            Some(endpoint) => Found::Endpoint(endpoint, found.params),
            None => Found::OtherMethod(&found.value.allow),
        }
    }
}

fn insert(
    paths: &mut matchit::Router<Path>,
    path: String,
    endpoints: Vec<Endpoint>,
) -> Result<(), RouteError> {
    let mut methods: Vec<_> = endpoints.iter().map(|endpoint| endpoint.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    let refused = endpoints.last().map(|endpoint| endpoint.refused(String::new()));
    let allow = HeaderValue::try_from(methods.join(", ")).map_err(|error| error.to_string());
    let inserted = allow.and_then(|allow| {
        paths.insert(path, Path { endpoints, allow }).map_err(|error| match error {
            matchit::InsertError::Conflict { with } => format!("it cannot be told from {with}"),
            other => other.to_string(),
        })
    });
    match (inserted, refused) {
        (Err(reason), Some(error)) => Err(RouteError { reason, ..error }),
        _ => Ok(()),
    }
}

impl Endpoint {
    fn new(owner: ServiceName, method: Method, path: String, action: Action) -> Self {
        let metrics = RequestMetrics::of_route(&path, method.as_str());
        Self { owner, method, path, action, metrics }
    }

    fn refused(&self, reason: String) -> RouteError {
        RouteError { owner: self.owner.clone(), method: self.method, path: self.path.clone(), reason }
    }
}

fn endpoints_of(manifest: &Manifest) -> impl Iterator<Item = Result<Endpoint, RouteError>> {
    manifest
        .routes
        .iter()
        .map(|route| endpoint(&manifest.service, route.method, &route.path, action_of(manifest, route)))
}

fn endpoint(
    owner: &ServiceName,
    method: Method,
    path: &str,
    action: Result<Action, String>,
) -> Result<Endpoint, RouteError> {
    let (owner, path) = (owner.clone(), path.to_owned());
    match action {
        Ok(action) => Ok(Endpoint::new(owner, method, path, action)),
        Err(reason) => Err(RouteError { owner, method, path, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::http::fixtures::manifest;
    use crate::manifest::{Route, Target};
    use crate::model::Json;

    fn found(table: &RouteTable, method: http::Method, path: &str) -> String {
        match table.find(&method, path) {
            Found::Nothing => "nothing".to_owned(),
            Found::OtherMethod(allow) => format!("allow {}", allow.to_str().unwrap()),
            Found::Endpoint(endpoint, params) => {
                let target = match &endpoint.action {
                    Action::Command(command) => format!("{}.{}", command.aggregate, command.command),
                    Action::Query(query) => format!("{}?", query.query),
                    Action::Builtin(builtin) => format!("{builtin:?}"),
                    Action::Act(act, _) => format!("{act:?}"),
                    Action::Operate(operation, _) => format!("{operation:?}"),
                    Action::Deploy => "deploy".to_owned(),
                    Action::Undeploy => "undeploy".to_owned(),
                };
                params.iter().fold(target, |text, (name, value)| format!("{text} {name}={value}"))
            }
        }
    }

    #[test]
    fn a_method_and_a_path_lead_to_what_the_manifest_says() {
        use http::Method;
        let table = RouteTable::new([&manifest()]).unwrap();
        for (method, path, expected) in [
            (Method::POST, "/orders", "order.create"),
            (Method::PUT, "/orders/7", "order.update id=7"),
            (Method::GET, "/orders/7", "order? id=7"),
            (Method::HEAD, "/orders/7", "order? id=7"),
            (Method::GET, "/orders/7/details", "details? id=7"),
            (Method::GET, "/orders", "allow POST"),
            (Method::DELETE, "/orders/7", "allow PUT, GET, HEAD"),
            (Method::OPTIONS, "/orders", "allow POST"),
            (Method::GET, "/orders/7/", "nothing"),
            (Method::GET, "/elsewhere", "nothing"),
            (Method::GET, "/", "Page"),
            (Method::GET, "/streams/order/7", "Stream aggregate=order id=7"),
            (Method::POST, "/healthz", "allow GET, HEAD"),
            (Method::GET, "/admin/sagas/7", "SagaTimeline id=7"),
            (Method::POST, "/admin/sagas/7/skip", "Skip id=7"),
            (Method::GET, "/admin/sagas/7/skip", "allow POST"),
            (Method::POST, "/admin/projections/report/redrive", "Redrive service=report"),
            (Method::POST, "/admin/dead-letters/redrive", "RedriveMessages"),
            (Method::PUT, "/admin/plugins", "deploy"),
            (Method::GET, "/admin/plugins/history", "PluginHistory"),
            (Method::POST, "/admin/plugins/order/rollback", "RollBack service=order"),
            (Method::DELETE, "/admin/plugins/order", "undeploy service=order"),
        ] {
            assert_eq!(found(&table, method.clone(), path), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_a_sentence() {
        let command = || Target::Command { aggregate: "order".into(), command: "create".into() };
        let query = || Target::Query("order".into());
        let table = [
            (Method::Post, "/orders", command(), "order already has it"),
            (Method::Get, "/healthz", query(), "the host already has it"),
            (Method::Get, "/orders/{key}", query(), "it cannot be told from /orders/{id}"),
            (
                Method::Get,
                "orders",
                query(),
                "a path starts with / and its placeholders stand for one segment each",
            ),
            (Method::Get, "/x", command(), "commands change something and cannot be reached by GET"),
            (Method::Post, "/x", query(), "queries change nothing and are reached by GET"),
            (
                Method::Post,
                "/x/{key}",
                command(),
                "a command's path knows only the placeholder {id}, not {key}",
            ),
            (Method::Get, "/x", Target::Query("nobody".into()), "the manifest has no query nobody"),
            (
                Method::Post,
                "/x",
                Target::Command { aggregate: "order".into(), command: "fly".into() },
                "the manifest has no command order.fly",
            ),
        ];
        for (method, path, target, reason) in table {
            let mut manifest = manifest();
            manifest.routes.push(Route { method, path: path.to_owned(), target });
            let error = RouteTable::new([&manifest]).err().unwrap();
            assert_eq!(error.to_string(), format!("order cannot have the route {method} {path}: {reason}"));
        }
    }

    #[test]
    fn two_services_cannot_have_the_same_route() {
        let mut other = manifest();
        other.service = "rival".into();
        let error = RouteTable::new([&manifest(), &other]).err().unwrap();
        assert_eq!(error.to_string(), "rival cannot have the route POST /orders: order already has it");
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        let mut manifest = manifest();
        manifest.aggregates[0].commands[0].payload = Json::parse(r#"{"type": "strin"}"#.to_owned()).unwrap();
        let error = RouteTable::new([&manifest]).err().unwrap();
        let start = "order cannot have the route POST /orders: the schema of order.create is wrong: ";
        assert!(error.to_string().starts_with(start), "{error}");
    }
}
