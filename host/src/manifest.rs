//! What a component says about itself, as the host keeps it. The shapes and their meaning: `wit/manifest.wit`.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::model::Json;

#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    pub service: Arc<str>,
    pub version: String,
    pub description: String,
    pub aggregates: Vec<Aggregate>,
    pub sagas: Vec<Saga>,
    pub queries: Vec<Query>,
    pub routes: Vec<Route>,
    pub read_model: Option<ReadModel>,
    pub permissions: Permissions,
}

#[derive(Clone, Debug, Serialize)]
pub struct Aggregate {
    pub name: Arc<str>,
    pub description: String,
    pub state_version: u32,
    /// JSON Schema.
    pub view: Json,
    pub commands: Vec<Command>,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Command {
    pub name: Arc<str>,
    pub description: String,
    /// JSON Schema.
    pub payload: Json,
    pub compensable: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Event {
    pub name: Arc<str>,
    pub description: String,
    /// JSON Schema.
    pub payload: Json,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct EventRef {
    pub aggregate: Arc<str>,
    pub event: Arc<str>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Saga {
    pub name: Arc<str>,
    pub description: String,
    pub starts_on: EventRef,
}

#[derive(Clone, Debug, Serialize)]
pub struct Query {
    pub name: Arc<str>,
    pub description: String,
    /// JSON Schema.
    pub arguments: Json,
    /// JSON Schema.
    pub answer: Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
    Patch,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Route {
    pub method: Method,
    pub path: String,
    pub target: Target,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    Command {
        aggregate: Arc<str>,
        command: Arc<str>,
    },
    /// A query of the service, or one of its aggregates: that is the query for its view.
    Query(Arc<str>),
}

#[derive(Clone, Debug, Serialize)]
pub struct ReadModel {
    pub version: u32,
    /// SQL.
    pub schema: String,
    pub subscribes: Vec<EventRef>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Permissions {
    pub services: Vec<String>,
    pub config: Vec<String>,
    pub http: Vec<String>,
    pub subjects: Vec<String>,
}

impl Manifest {
    pub fn aggregate(&self, name: &str) -> Option<&Aggregate> {
        self.aggregates.iter().find(|aggregate| *aggregate.name == *name)
    }

    pub fn query(&self, name: &str) -> Option<&Query> {
        self.queries.iter().find(|query| *query.name == *name)
    }
}

impl Aggregate {
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| *command.name == *name)
    }
}
