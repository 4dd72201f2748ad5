//! The declaration of a service.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use crate::bindings::exports::kontor::service::manifest;
use crate::read_model::{Batch, Projection, ReadModel};
use crate::{Aggregate, Error, Query, RecordedEvent, Saga, aggregate, json, query as queries, saga};

/// The declaration of a service: its aggregates, sagas, queries, read model and routes, and what it asks for.
/// Made in one function, which is passed to [`export!`](crate::export).
pub struct Service {
    name: &'static str,
    version: &'static str,
    description: &'static str,
    pub(crate) aggregates: Vec<aggregate::Handler>,
    pub(crate) sagas: Vec<saga::Handler>,
    pub(crate) queries: Vec<queries::Handler>,
    routes: Vec<manifest::Route>,
    pub(crate) read_model: Option<Box<dyn Projection>>,
    subscriptions: Vec<manifest::Subscription>,
    publications: Vec<manifest::Publication>,
    services: &'static [&'static str],
    config: &'static [&'static str],
    http: &'static [&'static str],
    http_configured: &'static [&'static str],
}

/// The target of a route: [`command`], [`query`] or [`view`].
pub struct Target(manifest::RouteTarget);

/// The place of an aggregate's id in a message.
pub enum MessageId {
    /// There is none: each message makes a new aggregate.
    New,
    /// The part of the subject with this number, from 1: 2 for `A-1` in `shipping.A-1.delivered`.
    Part(u32),
    /// The member of the payload with this name, a text.
    Member(&'static str),
}

/// Leads to a command of an aggregate, by its name. `{id}` in the path is the aggregate's id; a path without
/// it makes a new one. The host refuses a service with a route to a command that it does not have.
pub fn command<A: Aggregate>(name: &str) -> Target {
    let command = manifest::CommandRef { aggregate: A::NAME.to_owned(), command: name.to_owned() };
    Target(manifest::RouteTarget::Command(command))
}

/// Leads to a query. The placeholders of the path and the parameters of the query string are its arguments.
pub fn query<Q: Query>() -> Target {
    Target(manifest::RouteTarget::Query(Q::NAME.to_owned()))
}

/// Leads to the view of an aggregate; the path has its `{id}`.
pub fn view<A: Aggregate>() -> Target {
    Target(manifest::RouteTarget::Query(A::NAME.to_owned()))
}

impl Service {
    /// Declares a service that has nothing yet. The name is unique in a host; the version and the description
    /// are for people.
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

    /// Adds a kind of aggregate, which this service owns.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.aggregates.push(aggregate::Handler::of::<A>());
        self
    }

    /// Adds a saga.
    pub fn saga<S: Saga>(mut self) -> Self {
        self.sagas.push(saga::Handler::of::<S>());
        self
    }

    /// Adds a query.
    pub fn query<Q: Query>(mut self) -> Self {
        self.queries.push(queries::Handler::of::<Q>());
        self
    }

    /// Sets the read model.
    pub fn read_model<B: Batch>(self, read_model: ReadModel<B>) -> Self {
        Self { read_model: Some(Box::new(read_model)), ..self }
    }

    /// Takes messages of NATS as commands: a message on the subject, in which `*` and `>` are as in NATS, is
    /// the command's payload. The operator of the host has to grant the subject.
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

    /// Publishes an event on this subject too, in which `{id}` stands for the aggregate's id. The operator of
    /// the host has to grant the subject, with `*` in the place of the id.
    pub fn publishes<A: Aggregate>(mut self, event: &str, subject: &str) -> Self {
        self.publications.push(manifest::Publication {
            event: manifest::EventRef { aggregate: A::NAME.to_owned(), event: event.to_owned() },
            subject: subject.to_owned(),
        });
        self
    }

    /// Asks for the permission to query these services.
    pub fn asks_services(self, services: &'static [&'static str]) -> Self {
        Self { services, ..self }
    }

    /// Asks for the permission to read these keys with [`config`](crate::config).
    pub fn asks_config(self, config: &'static [&'static str]) -> Self {
        Self { config, ..self }
    }

    /// Asks for the permission to call these origins with [`http`](crate::http):
    /// `https://payments.example:8443`. The operator of the host has to grant each of them.
    pub fn asks_http(self, origins: &'static [&'static str]) -> Self {
        Self { http: origins, ..self }
    }

    /// Asks for the permission to call the origins of the URLs that the operator configures under these keys,
    /// and to read the keys. A key that is not set asks for nothing.
    pub fn asks_http_configured(self, keys: &'static [&'static str]) -> Self {
        Self { http_configured: keys, ..self }
    }

    /// Adds the route `GET path`.
    pub fn get(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Get, path, target)
    }

    /// Adds the route `POST path`.
    pub fn post(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Post, path, target)
    }

    /// Adds the route `PUT path`.
    pub fn put(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Put, path, target)
    }

    /// Adds the route `DELETE path`.
    pub fn delete(self, path: &str, target: Target) -> Self {
        self.route(manifest::Method::Delete, path, target)
    }

    /// Adds the route `PATCH path`.
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
            sagas: self.sagas.iter().map(|saga| (saga.describe)()).collect(),
            queries: self.queries.iter().map(|query| (query.describe)()).collect(),
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
    /// Returns all subjects of messages and publications, each once.
    fn subjects(&self) -> Vec<String> {
        let taken = self.subscriptions.iter().map(|subscription| subscription.subject.clone());
        let published = self.publications.iter().map(|publication| publication.subject.replace("{id}", "*"));
        let subjects: BTreeSet<_> = taken.chain(published).collect();
        subjects.into_iter().collect()
    }
}

impl RecordedEvent {
    /// Reads the payload as a `T`.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let Self { name, aggregate, aggregate_id, .. } = self;
        json::read(&self.payload, format_args!("{name} of {aggregate} {aggregate_id}"))
    }
}
