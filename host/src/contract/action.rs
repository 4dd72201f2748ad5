//! The target of a route, with its schemas compiled.

use hyper::header::HeaderValue;

use super::{Access, Arguments, Manifest, Method, Route, Target, arguments_schema};
use crate::model::{AggregateName, CommandName, QueryName, ServiceName};

/// The placeholder for an aggregate's id.
const ID: &str = "id";

/// The target of a route: a command or a query of a service, or `H`, the handle of one of the host's own
/// routes.
pub(crate) enum Action<H> {
    Command(CommandRoute),
    Query(QueryRoute),
    Host(H),
}

pub(crate) struct CommandRoute {
    pub(crate) aggregate: AggregateName,
    pub(crate) command: CommandName,
    /// The callers that may use the route.
    pub(crate) access: Access,
    /// The path of the aggregate's view. None: there is no route for it.
    pub(crate) location: Option<Location>,
}

pub(crate) struct QueryRoute {
    pub(crate) service: ServiceName,
    pub(crate) query: QueryName,
    /// The callers that may use the route.
    pub(crate) access: Access,
    pub(crate) arguments: Arguments,
}

/// A path with one placeholder for an id.
#[derive(Debug, PartialEq)]
pub(crate) struct Location {
    before: String,
    after: String,
}

/// Compiles the target of a route. An error is a sentence that says why the route cannot be served.
pub(super) fn action_of<H>(manifest: &Manifest, route: &Route) -> Result<Action<H>, String> {
    if !route.path.starts_with('/') || route.path.contains("{*") {
        return Err("a path starts with / and its placeholders stand for one segment each".to_owned());
    }
    match &route.target {
        Target::Command { aggregate, command } => {
            command_of(manifest, route, aggregate, command).map(Action::Command)
        }
        Target::Query(_) if route.method != Method::Get => {
            Err("queries change nothing and are reached by GET".to_owned())
        }
        Target::Query(name) => query_of(manifest, route, name).map(Action::Query),
    }
}

fn command_of(
    manifest: &Manifest,
    route: &Route,
    aggregate: &AggregateName,
    command: &CommandName,
) -> Result<CommandRoute, String> {
    if route.method == Method::Get {
        return Err("commands change something and cannot be reached by GET".to_owned());
    }
    if let Some(other) = placeholders(&route.path).find(|name| *name != ID) {
        return Err(format!("a command's path may have only the placeholder {{id}}, not {{{other}}}"));
    }
    let known = manifest.command(aggregate.as_str(), command.as_str());
    known.ok_or_else(|| format!("the manifest has no command {aggregate}.{command}"))?;
    Ok(CommandRoute {
        aggregate: aggregate.clone(),
        command: command.clone(),
        access: route.access.clone(),
        location: view_path(manifest, aggregate.as_str()).and_then(Location::of),
    })
}

fn query_of(manifest: &Manifest, route: &Route, name: &QueryName) -> Result<QueryRoute, String> {
    let schema = arguments_schema(manifest, name.as_str());
    let schema = schema.ok_or_else(|| format!("the manifest has no query {name}"))?;
    let arguments = schema.and_then(|schema| Arguments::compile(&schema));
    Ok(QueryRoute {
        service: manifest.service.clone(),
        query: name.clone(),
        access: route.access.clone(),
        arguments: arguments
            .map_err(|reason| format!("the schema of the query {name} is wrong: {reason}"))?,
    })
}

/// Returns the path of an aggregate's view.
fn view_path<'m>(manifest: &'m Manifest, aggregate: &str) -> Option<&'m str> {
    let shows = |route: &&Route| {
        let is_view = matches!(&route.target, Target::Query(name) if *name == *aggregate);
        is_view && manifest.query(aggregate).is_none() && placeholders(&route.path).eq([ID])
    };
    manifest.routes.iter().find(shows).map(|route| route.path.as_str())
}

/// Returns the names between braces, in order.
pub(crate) fn placeholders(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

impl Location {
    fn of(path: &str) -> Option<Self> {
        let (before, after) = path.split_once("{id}")?;
        Some(Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// Returns the path with this id. Ids need no escaping: see [`crate::model::StreamId`].
    pub(crate) fn of_id(&self, id: &str) -> Option<HeaderValue> {
        HeaderValue::try_from([&self.before, id, &self.after].concat()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::fixtures::manifest;

    #[test]
    fn a_command_has_the_path_of_its_aggregate() {
        let action = action_of::<()>(&manifest(), &manifest().routes[0]);
        let Ok(Action::Command(command)) = action else { panic!() };
        let location = command.location.as_ref().and_then(|location| location.of_id("o-1"));
        assert_eq!(location.unwrap(), "/orders/o-1");
    }

    #[test]
    fn placeholders_are_the_names_in_braces() {
        for (path, names) in [("/", vec![]), ("/a/{b}", vec!["b"]), ("/{a}/b/{c}", vec!["a", "c"])] {
            assert_eq!(placeholders(path).collect::<Vec<_>>(), names, "{path}");
        }
    }
}
