use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aggregate::{Aggregate, Handler};
use crate::bindings::exports::kontor::service::manifest;
use crate::read_model::{Batch, Projection, ReadModel};
use crate::saga::Saga;
use crate::services::Failure;
use crate::{RecordedEvent, Rejection, json, schema};

/// What a component is: its aggregates, sagas, queries, read model and routes. Declared in one function, which is given
/// to [`export!`](crate::export).
pub struct Service {
    name: &'static str,
    version: &'static str,
    description: &'static str,
    pub(crate) aggregates: Vec<Handler>,
    pub(crate) sagas: Vec<SagaHandler>,
    pub(crate) queries: Vec<QueryHandler>,
    routes: Vec<manifest::Route>,
    pub(crate) read_model: Option<Box<dyn Projection>>,
    subscriptions: Vec<manifest::Subscription>,
    publications: Vec<manifest::Publication>,
    services: &'static [&'static str],
    config: &'static [&'static str],
    http: &'static [&'static str],
    http_configured: &'static [&'static str],
}

/// A saga with the type of its trigger erased.
pub(crate) struct SagaHandler {
    pub(crate) name: &'static str,
    description: &'static str,
    aggregate: &'static str,
    event: &'static str,
    pub(crate) run: Box<dyn Fn(Saga) -> Result<(), Rejection> + Send + Sync>,
}

/// A query with its types erased.
pub(crate) struct QueryHandler {
    pub(crate) name: &'static str,
    description: &'static str,
    arguments: fn() -> schemars::Schema,
    answer: fn() -> schemars::Schema,
    pub(crate) run: Box<Answer>,
}

/// From the arguments' JSON text to the answer's.
type Answer = dyn Fn(&str) -> Result<String, Failure> + Send + Sync;

/// Where a route leads: [`command`], [`query`] or [`view`].
pub struct Target(manifest::RouteTarget);

/// Where the id of the aggregate stands that a message is for.
pub enum MessageId {
    /// Nowhere: each message makes a new aggregate.
    New,
    /// The part of the subject with this number, from 1: 2 for `A-1` in `shipping.A-1.delivered`.
    Part(u32),
    /// The member of the payload with this name, a text.
    Member(&'static str),
}

/// A command of an aggregate. `{id}` in the path is the aggregate's id; a path without it makes a new one.
pub fn command<A: Aggregate>(name: &str) -> Target {
    let command = manifest::CommandRef { aggregate: A::NAME.to_owned(), command: name.to_owned() };
    Target(manifest::RouteTarget::Command(command))
}

/// A query. The placeholders of the path and the parameters of the query string are its arguments.
pub fn query(name: &str) -> Target {
    Target(manifest::RouteTarget::Query(name.to_owned()))
}

/// The view of an aggregate; the path has its `{id}`.
pub fn view<A: Aggregate>() -> Target {
    query(A::NAME)
}

impl Service {
    /// A service that has nothing yet. The name is unique in a host, the version and the description are for people.
    pub fn new(name: &'static str, version: &'static str, description: &'static str) -> Self {
        Self {
            name,
            version,
            description,
            aggregates: Vec::new(),
            sagas: Vec::new(),
            queries: Vec::new(),
            routes: Vec::new(),
            read_model: None,
            subscriptions: Vec::new(),
            publications: Vec::new(),
            services: &[],
            config: &[],
            http: &[],
            http_configured: &[],
        }
    }

    /// Owns this kind of aggregate.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.aggregates.push(Handler::of::<A>());
        self
    }

    /// Runs a saga on each such event of such an aggregate. `T` is the event's payload, or the part of it that the saga
    /// needs.
    pub fn saga<T: DeserializeOwned + 'static>(
        mut self,
        name: &'static str,
        description: &'static str,
        (aggregate, event): (&'static str, &'static str),
        run: fn(&Saga, T) -> Result<(), Rejection>,
    ) -> Self {
        let run = move |saga: Saga| {
            let trigger = saga.trigger.payload();
            run(&saga, trigger)
        };
        self.sagas.push(SagaHandler { name, description, aggregate, event, run: Box::new(run) });
        self
    }

    /// Answers a query.
    pub fn query<T, R, E>(
        mut self,
        name: &'static str,
        description: &'static str,
        answer: fn(T) -> Result<R, E>,
    ) -> Self
    where
        T: DeserializeOwned + JsonSchema + 'static,
        R: Serialize + JsonSchema + 'static,
        E: Into<Failure> + 'static,
    {
        let run = move |arguments: &str| {
            let arguments = serde_json::from_str(arguments).map_err(|error| {
                Rejection::new("invalid-arguments", format!("The arguments cannot be read: {error}."))
            })?;
            answer(arguments).map(|answer| json::text(&answer)).map_err(Into::into)
        };
        self.queries.push(QueryHandler {
            name,
            description,
            arguments: schema::of_input::<T>,
            answer: schema::of_output::<R>,
            run: Box::new(run),
        });
        self
    }

    /// Has a read model.
    pub fn read_model<B: Batch>(self, read_model: ReadModel<B>) -> Self {
        Self { read_model: Some(Box::new(read_model)), ..self }
    }

    /// Takes messages of NATS as commands: what comes on the subject, in which `*` and `>` are as in NATS, is the command's
    /// payload. The operator of the host has to grant the subject.
    pub fn on_message<A: Aggregate>(mut self, subject: &str, id: MessageId, command: &str) -> Self {
        self.subscriptions.push(manifest::Subscription {
            subject: subject.to_owned(),
            command: manifest::CommandRef { aggregate: A::NAME.to_owned(), command: command.to_owned() },
            id: match id {
                MessageId::New => None,
                MessageId::Part(part) => Some(manifest::IdSource::Part(part)),
                MessageId::Member(name) => Some(manifest::IdSource::Member(name.to_owned())),
            },
        });
        self
    }

    /// Publishes an event on this subject too, in which `{id}` stands for the aggregate's id. The operator of the host has
    /// to grant the subject, with `*` in the place of the id.
    pub fn publishes<A: Aggregate>(mut self, event: &str, subject: &str) -> Self {
        self.publications.push(manifest::Publication {
            event: manifest::EventRef { aggregate: A::NAME.to_owned(), event: event.to_owned() },
            subject: subject.to_owned(),
        });
        self
    }

    /// May ask these services.
    pub fn asks_services(self, services: &'static [&'static str]) -> Self {
        Self { services, ..self }
    }

    /// May read these keys with [`config`](crate::config).
    pub fn asks_config(self, config: &'static [&'static str]) -> Self {
        Self { config, ..self }
    }

    /// May call these origins with [`http`](crate::http): `https://payments.example:8443`. The operator of the host has to
    /// grant each of them.
    pub fn asks_http(self, origins: &'static [&'static str]) -> Self {
        Self { http: origins, ..self }
    }

    /// May call the origins of the URLs that the operator configures under these keys, and read the keys. A key that is not
    /// set asks for nothing.
    pub fn asks_http_configured(self, keys: &'static [&'static str]) -> Self {
        Self { http_configured: keys, ..self }
    }

    /// `GET path`
    pub fn get(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Get, path, target)
    }

    /// `POST path`
    pub fn post(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Post, path, target)
    }

    /// `PUT path`
    pub fn put(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Put, path, target)
    }

    /// `DELETE path`
    pub fn delete(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Delete, path, target)
    }

    /// `PATCH path`
    pub fn patch(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Patch, path, target)
    }

    fn route(mut self, method: manifest::Method, path: &str, Target(target): Target) -> Self {
        self.routes.push(manifest::Route { method, path: path.to_owned(), target });
        self
    }

    pub(crate) fn describe(&self) -> manifest::Manifest {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let origins = self.http_configured.iter().map(|key| format!("config:{key}"));
        manifest::Manifest {
            service: self.name.to_owned(),
            version: self.version.to_owned(),
            description: self.description.to_owned(),
            aggregates: self.aggregates.iter().map(|aggregate| (aggregate.describe)()).collect(),
            sagas: self.sagas.iter().map(SagaHandler::describe).collect(),
            queries: self.queries.iter().map(QueryHandler::describe).collect(),
            routes: self.routes.clone(),
            read_model: self.read_model.as_ref().map(|model| model.describe()),
            subscriptions: self.subscriptions.clone(),
            publications: self.publications.clone(),
            permissions: manifest::Permissions {
                services: owned(self.services),
                config: owned(&[self.config, self.http_configured].concat()),
                http: owned(self.http).into_iter().chain(origins).collect(),
                subjects: self.subjects(),
            },
        }
    }
}

impl Service {
    /// All subjects that it uses, each once.
    fn subjects(&self) -> Vec<String> {
        let taken = self.subscriptions.iter().map(|subscription| subscription.subject.clone());
        let published = self.publications.iter().map(|publication| publication.subject.replace("{id}", "*"));
        let subjects: BTreeSet<_> = taken.chain(published).collect();
        subjects.into_iter().collect()
    }
}

impl SagaHandler {
    fn describe(&self) -> manifest::Saga {
        manifest::Saga {
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            starts_on: manifest::EventRef {
                aggregate: self.aggregate.to_owned(),
                event: self.event.to_owned(),
            },
        }
    }
}

impl QueryHandler {
    fn describe(&self) -> manifest::Query {
        manifest::Query {
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            arguments: json::text(&(self.arguments)()),
            answer: json::text(&(self.answer)()),
        }
    }
}

impl RecordedEvent {
    /// The payload as a `T`. Panics, which is a fault, if it is none.
    pub fn payload<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| {
            panic!("{} of {} {} cannot be read: {error}", self.name, self.aggregate, self.aggregate_id)
        })
    }
}
