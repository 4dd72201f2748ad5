//! The route table: the command, the query or the host route of each method and path. It is made from the
//! manifests of one deployed set, together with the compiled schemas, so that a request costs only a lookup.

use std::collections::BTreeMap;

use hyper::header::HeaderValue;
use matchit::Params;

use super::action::{Action, action_of};
use super::{Manifest, Method};
use crate::model::ServiceName;

/// The owner of the host's own routes in an error.
const HOST: &str = "the host";

/// The first parts of the paths that no service may have: those of the host's own routes, today and in the
/// console to come. An operator who guards `/admin` by a rule on paths must be able to rely on it.
pub(crate) const RESERVED_PARTS: [&str; 13] = [
    "",
    "admin",
    "api",
    "auth",
    "console",
    "events",
    "healthz",
    "metrics",
    "openapi.json",
    "problems",
    "readyz",
    "sagas",
    "streams",
];

/// The error of a set of services that cannot be served together.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{owner} cannot have the route {method} {path}: {reason}")]
pub struct RouteError {
    owner: ServiceName,
    method: Method,
    path: String,
    reason: String,
}

impl RouteError {
    /// Returns the error of a host route that cannot be served.
    pub(crate) fn of_host(reason: String) -> Self {
        Self { owner: HOST.into(), method: Method::Get, path: String::new(), reason }
    }
}

/// One of the host's own routes, with its handle in the table.
#[derive(Clone, Copy, Debug)]
pub struct ReservedRoute<H> {
    /// The method.
    pub method: Method,
    /// The path with its placeholders.
    pub path: &'static str,
    /// The handle, which a lookup returns.
    pub handle: H,
}

/// All routes of one deployed set; `H` is the handle of the host's own routes.
pub struct RouteTable<H> {
    paths: matchit::Router<Path<H>>,
    /// The path and method of each endpoint, by [`Endpoint::index`].
    endpoints: Vec<(String, Method)>,
}

/// The endpoints of one path.
struct Path<H> {
    endpoints: Vec<Endpoint<H>>,
    allow: HeaderValue,
}

/// One method on one path.
pub(crate) struct Endpoint<H> {
    owner: ServiceName,
    method: Method,
    /// The endpoint's place in [`RouteTable::endpoints`].
    pub(crate) index: usize,
    pub(crate) path: String,
    pub(crate) action: Action<H>,
}

/// The result of a lookup.
pub(crate) enum Found<'t, 'p, H> {
    Endpoint(&'t Endpoint<H>, Params<'t, 'p>),
    /// The path exists, with these methods.
    OtherMethod(&'t HeaderValue),
    Nothing,
}

impl<H> RouteTable<H> {
    /// Compiles the routes and schemas of all services together with the host's own routes.
    pub fn new<'m>(
        host: impl IntoIterator<Item = ReservedRoute<H>>,
        manifests: impl IntoIterator<Item = &'m Manifest>,
    ) -> Result<Self, RouteError> {
        let mut by_path: BTreeMap<String, Vec<Endpoint<H>>> = BTreeMap::new();
        let mut endpoints = Vec::new();
        let host = host.into_iter().map(|ReservedRoute { method, path, handle }| {
            endpoint(&HOST.into(), method, path, Ok(Action::Host(handle)))
        });
        let services = manifests.into_iter().flat_map(endpoints_of);
        for endpoint in host.chain(services) {
            let mut endpoint = endpoint?;
            endpoint.index = endpoints.len();
            endpoints.push((endpoint.path.clone(), endpoint.method));
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
        Ok(Self { paths, endpoints })
    }

    /// Returns path and method of each endpoint, by [`Endpoint::index`].
    pub(crate) fn endpoints(&self) -> &[(String, Method)] {
        &self.endpoints
    }

    /// Looks up a method and a path. HEAD is answered by GET.
    pub(crate) fn find<'t, 'p>(&'t self, method: &hyper::Method, path: &'p str) -> Found<'t, 'p, H> {
        let Ok(found) = self.paths.at(path) else {
            return Found::Nothing;
        };
        let method = if method == hyper::Method::HEAD { &hyper::Method::GET } else { method };
        let mut endpoints = found.value.endpoints.iter();
        match endpoints.find(|endpoint| endpoint.method.as_str() == method.as_str()) {
            Some(endpoint) => Found::Endpoint(endpoint, found.params),
            None => Found::OtherMethod(&found.value.allow),
        }
    }
}

fn insert<H>(
    paths: &mut matchit::Router<Path<H>>,
    path: String,
    endpoints: Vec<Endpoint<H>>,
) -> Result<(), RouteError> {
    let mut methods: Vec<_> = endpoints.iter().map(|endpoint| endpoint.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    let refused = endpoints.last().map(|endpoint| endpoint.refused(String::new()));
    let allow = HeaderValue::try_from(methods.join(", ")).map_err(|error| error.to_string());
    let inserted = allow.and_then(|allow| {
        paths.insert(path, Path { endpoints, allow }).map_err(|error| match error {
            matchit::InsertError::Conflict { with } => format!("it conflicts with {with}"),
            other => other.to_string(),
        })
    });
    match (inserted, refused) {
        (Err(reason), Some(error)) => Err(RouteError { reason, ..error }),
        _ => Ok(()),
    }
}

impl<H> Endpoint<H> {
    fn refused(&self, reason: String) -> RouteError {
        RouteError { owner: self.owner.clone(), method: self.method, path: self.path.clone(), reason }
    }
}

fn endpoints_of<H>(manifest: &Manifest) -> impl Iterator<Item = Result<Endpoint<H>, RouteError>> {
    manifest.routes.iter().map(|route| {
        let action = check_first_part(&route.path).and_then(|()| action_of(manifest, route));
        endpoint(&manifest.service, route.method, &route.path, action)
    })
}

/// Fails if a path may lead to a place of the host's own. An error is a sentence.
fn check_first_part(path: &str) -> Result<(), String> {
    let first = first_part(path);
    match first {
        first if first.contains('{') => Err("its first part must not be a placeholder".to_owned()),
        first if RESERVED_PARTS.contains(&first) => Err(format!("paths under /{first} are the host's own")),
        _ => Ok(()),
    }
}

/// Returns the first part of a path: `orders` for `/orders/{id}`.
pub(crate) fn first_part(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

fn endpoint<H>(
    owner: &ServiceName,
    method: Method,
    path: &str,
    action: Result<Action<H>, String>,
) -> Result<Endpoint<H>, RouteError> {
    let (owner, path) = (owner.clone(), path.to_owned());
    match action {
        Ok(action) => Ok(Endpoint { owner, method, index: 0, path, action }),
        Err(reason) => Err(RouteError { owner, method, path, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::fixtures::manifest;
    use crate::contract::{Access, Route, Target};

    /// Routes of the host, each with a name for a handle.
    const HOST_ROUTES: [ReservedRoute<&str>; 2] = [
        ReservedRoute { method: Method::Get, path: "/healthz", handle: "health" },
        ReservedRoute { method: Method::Get, path: "/streams/{aggregate}/{id}", handle: "stream" },
    ];

    fn table<'m>(
        manifests: impl IntoIterator<Item = &'m Manifest>,
    ) -> Result<RouteTable<&'static str>, RouteError> {
        RouteTable::new(HOST_ROUTES, manifests)
    }

    fn found(table: &RouteTable<&str>, method: hyper::Method, path: &str) -> String {
        match table.find(&method, path) {
            Found::Nothing => "nothing".to_owned(),
            Found::OtherMethod(allow) => format!("allow {}", allow.to_str().unwrap()),
            Found::Endpoint(endpoint, params) => {
                let target = match &endpoint.action {
                    Action::Command(command) => format!("{}.{}", command.aggregate, command.command),
                    Action::Query(query) => format!("{}?", query.query),
                    Action::Host(name) => (*name).to_owned(),
                };
                params.iter().fold(target, |text, (name, value)| format!("{text} {name}={value}"))
            }
        }
    }

    #[test]
    fn a_method_and_a_path_lead_to_the_target_in_the_manifest() {
        use hyper::Method;
        let routes = table([&manifest()]).unwrap();
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
            (Method::GET, "/streams/order/7", "stream aggregate=order id=7"),
            (Method::POST, "/healthz", "allow GET, HEAD"),
        ] {
            assert_eq!(found(&routes, method.clone(), path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_route_that_cannot_be_served_is_refused_with_a_sentence() {
        let command = || Target::Command { aggregate: "order".into(), command: "create".into() };
        let query = || Target::Query("order".into());
        let refused = [
            (Method::Post, "/orders", command(), "order already has it"),
            (Method::Get, "/healthz", query(), "paths under /healthz are the host's own"),
            (Method::Get, "/admin/anything", query(), "paths under /admin are the host's own"),
            (Method::Get, "/streams/order/7", query(), "paths under /streams are the host's own"),
            (Method::Get, "/", query(), "paths under / are the host's own"),
            (Method::Get, "/{id}", query(), "its first part must not be a placeholder"),
            (Method::Get, "/orders/{key}", query(), "it conflicts with /orders/{id}"),
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
                "a command's path may have only the placeholder {id}, not {key}",
            ),
            (Method::Get, "/x", Target::Query("nobody".into()), "the manifest has no query nobody"),
            (
                Method::Post,
                "/x",
                Target::Command { aggregate: "order".into(), command: "fly".into() },
                "the manifest has no command order.fly",
            ),
        ];
        for (method, path, target, reason) in refused {
            let mut manifest = manifest();
            manifest.routes.push(Route { method, path: path.to_owned(), target, access: Access::SignedIn });
            let error = table([&manifest]).err().unwrap();
            assert_eq!(error.to_string(), format!("order cannot have the route {method} {path}: {reason}"));
        }
    }

    #[test]
    fn two_services_cannot_have_the_same_route() {
        let mut other = manifest();
        other.service = "rival".into();
        let error = table([&manifest(), &other]).err().unwrap();
        assert_eq!(error.to_string(), "rival cannot have the route POST /orders: order already has it");
    }
}
