//! The declaration of a service.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::bindings::exports::kontor::service::manifest;
use crate::read_model::{Batch, Projection, ReadModel};
use crate::{
    Access, Aggregate, Error, Query, RecordedEvent, Saga, aggregate, json, query as queries, saga, schema,
};

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
    settings: Vec<manifest::Setting>,
    services: &'static [&'static str],
    http: &'static [&'static str],
    http_configured: &'static [&'static str],
}

/// The target of a route: [`command`], [`query`] or [`view`], and the callers that may use it.
pub struct Target {
    target: manifest::RouteTarget,
    access: Access,
}

impl Target {
    fn new(target: manifest::RouteTarget) -> Self {
        Self { target, access: Access::SignedIn }
    }

    /// Sets the callers that may use the route: those that have signed in, unless this says otherwise.
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }
}

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
    Target::new(manifest::RouteTarget::Command(command))
}

/// Leads to a query. The placeholders of the path and the parameters of the query string are its arguments.
pub fn query<Q: Query>() -> Target {
    Target::new(manifest::RouteTarget::Query(Q::NAME.to_owned()))
}

/// Leads to the view of an aggregate; the path has its `{id}`.
pub fn view<A: Aggregate>() -> Target {
    Target::new(manifest::RouteTarget::Query(A::NAME.to_owned()))
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
            settings: Vec::new(),
            services: &[],
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

    /// Declares a key of the configuration, which the operator may set to a `T` and the service reads with
    /// [`config`](crate::config). The host checks the value before the service runs.
    pub fn setting<T: JsonSchema>(self, key: &str, description: &str) -> Self {
        self.declare::<T>(key, description, false)
    }

    /// Declares a key of the configuration without which the service cannot run.
    pub fn required_setting<T: JsonSchema>(self, key: &str, description: &str) -> Self {
        self.declare::<T>(key, description, true)
    }

    fn declare<T: JsonSchema>(mut self, key: &str, description: &str, required: bool) -> Self {
        self.settings.push(manifest::Setting {
            key: key.to_owned(),
            description: description.to_owned(),
            schema: json::text(&schema::of_input::<T>()),
            required,
        });
        self
    }

    /// Asks for the permission to call these origins with [`http`](crate::http):
    /// `https://payments.example:8443`. The operator of the host has to grant each of them.
    pub fn asks_http(self, origins: &'static [&'static str]) -> Self {
        Self { http: origins, ..self }
    }

    /// Asks for the permission to call the origins of the URLs that the operator configures under these keys,
    /// which are settings of the service. A key that is not set asks for nothing.
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

    fn route(mut self, method: manifest::Method, path: &str, Target { target, access }: Target) -> Self {
        self.routes.push(manifest::Route { method, path: path.to_owned(), target, access: access.into() });
        self
    }

    pub(crate) fn describe(&self) -> manifest::Manifest {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let origins = self.http_configured.iter().map(|key| format!("config:{key}"));
        let read_model = self.read_model.as_ref().map(|model| model.describe());
        let sagas: Vec<_> = self.sagas.iter().map(|saga| (saga.describe)()).collect();
        let events = self.events(read_model.as_ref(), &sagas);
        manifest::Manifest {
            service: self.name.to_owned(),
            version: self.version.to_owned(),
            description: self.description.to_owned(),
            aggregates: self.aggregates.iter().map(|aggregate| (aggregate.describe)()).collect(),
            sagas,
            queries: self.queries.iter().map(|query| (query.describe)()).collect(),
            routes: self.routes.clone(),
            read_model,
            subscriptions: self.subscriptions.clone(),
            publications: self.publications.clone(),
            settings: self.settings.clone(),
            permissions: manifest::Permissions {
                commands: self.commands(),
                events,
                services: owned(self.services),
                http: owned(self.http).into_iter().chain(origins).collect(),
                subjects: self.subjects(),
            },
        }
    }
}

impl Service {
    /// Returns the commands of other services that the sagas send, each once.
    fn commands(&self) -> Vec<manifest::CommandRef> {
        let sent = self.sagas.iter().flat_map(|saga| saga.commands);
        let owned = |(aggregate, command)| manifest::CommandRef { aggregate, command };
        self.of_others(sent.map(|name| parts(name))).into_iter().map(owned).collect()
    }

    /// Returns the events of other services that the read model follows, and those that sagas start on or
    /// wait for, each once.
    fn events(
        &self,
        read_model: Option<&manifest::ReadModel>,
        sagas: &[manifest::Saga],
    ) -> Vec<manifest::EventRef> {
        let followed = read_model.into_iter().flat_map(|model| &model.subscribes);
        let events = followed.chain(sagas.iter().map(|saga| &saga.starts_on));
        let names = events.map(|event| (event.aggregate.as_str(), event.event.as_str()));
        let awaited = self.sagas.iter().flat_map(|saga| saga.awaited).map(|name| parts(name));
        let owned = |(aggregate, event)| manifest::EventRef { aggregate, event };
        self.of_others(names.chain(awaited)).into_iter().map(owned).collect()
    }

    /// Returns the names of which the aggregate belongs to another service, each once.
    fn of_others<'n>(&self, names: impl Iterator<Item = (&'n str, &'n str)>) -> BTreeSet<(String, String)> {
        let own = |aggregate: &str| self.aggregates.iter().any(|own| own.name == aggregate);
        let others = names.filter(|(aggregate, _)| !own(aggregate));
        others.map(|(aggregate, name)| (aggregate.to_owned(), name.to_owned())).collect()
    }

    /// Returns all subjects of messages and publications, each once.
    fn subjects(&self) -> Vec<String> {
        let taken = self.subscriptions.iter().map(|subscription| subscription.subject.clone());
        let published = self.publications.iter().map(|publication| publication.subject.replace("{id}", "*"));
        let subjects: BTreeSet<_> = taken.chain(published).collect();
        subjects.into_iter().collect()
    }
}

/// Splits the name of another service's command or event: `payment.authorize`.
fn parts(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or_else(|| panic!("{name:?} is no name such as payment.authorize"))
}

impl RecordedEvent {
    /// Reads the payload as a `T`.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let Self { name, aggregate, aggregate_id, .. } = self;
        json::read(&self.payload, format_args!("{name} of {aggregate} {aggregate_id}"))
    }
}
