//! The manifest of a component, as the host keeps it. The shapes and their meaning are those of
//! `wit/manifest.wit`.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Access, CommandRef, EventRef, Grant};
use crate::model::{
    self, AggregateName, CommandName, EventName, Json, QueryName, Role, SagaName, ServiceName,
};

/// The description of a service by its component.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    /// The name of the service.
    pub service: ServiceName,
    /// The version of the service, for people.
    pub version: String,
    /// A description, for people.
    pub description: String,
    /// The aggregates with their commands and events.
    pub aggregates: Vec<Aggregate>,
    /// The sagas.
    pub sagas: Vec<Saga>,
    /// The queries, apart from those for the views of aggregates.
    pub queries: Vec<Query>,
    /// The HTTP routes.
    pub routes: Vec<Route>,
    /// The read model, if the service has one.
    pub read_model: Option<ReadModel>,
    /// The subjects whose messages become commands.
    pub subscriptions: Vec<Subscription>,
    /// The events that are published as messages.
    pub publications: Vec<Publication>,
    /// The keys of the service's configuration.
    pub settings: Vec<Setting>,
    /// The permissions that the service asks for.
    pub permissions: Permissions,
}

/// A kind of aggregate.
#[derive(Clone, Debug, Serialize)]
pub struct Aggregate {
    /// Its name, which is the kind of its streams.
    pub name: AggregateName,
    /// A description, for people.
    pub description: String,
    /// The version of the shape of its state; another one invalidates snapshots.
    pub state_version: u32,
    /// The JSON Schema of its view.
    pub view: Json,
    /// The callers that may see the view of one aggregate; `None`: all that its route lets in.
    pub readers: Option<Readers>,
    /// Its commands.
    pub commands: Vec<Command>,
    /// Its events.
    pub events: Vec<Event>,
}

/// The callers that may see the view of one aggregate: its owner, and those with one of the roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readers {
    /// The member of the view that holds the owner's subject.
    pub owner: String,
    /// The roles.
    pub roles: Vec<Role>,
}

/// A key of a service's configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// A description, for people.
    pub description: String,
    /// The JSON Schema of its value.
    pub schema: Json,
    /// True if the service cannot run without it.
    pub required: bool,
}

/// A command of an aggregate.
#[derive(Clone, Debug, Serialize)]
pub struct Command {
    /// Its name.
    pub name: CommandName,
    /// A description, for people.
    pub description: String,
    /// The JSON Schema of its payload.
    pub payload: Json,
    /// True if the command can be undone.
    pub compensable: bool,
}

/// An event of an aggregate.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its name.
    pub name: EventName,
    /// A description, for people.
    pub description: String,
    /// The JSON Schema of its payload.
    pub payload: Json,
}

/// A saga of the service.
#[derive(Clone, Debug, Serialize)]
pub struct Saga {
    /// Its name.
    pub name: SagaName,
    /// A description, for people.
    pub description: String,
    /// The event that starts it.
    pub starts_on: EventRef,
}

/// A query of the service.
#[derive(Clone, Debug, Serialize)]
pub struct Query {
    /// Its name.
    pub name: QueryName,
    /// A description, for people.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub arguments: Json,
    /// The JSON Schema of its answer.
    pub answer: Json,
}

/// A method of HTTP.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `PATCH`
    Patch,
}

impl Method {
    /// Returns the name: `GET`.
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

/// An HTTP route.
#[derive(Clone, Debug, Serialize)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path with its placeholders.
    pub path: String,
    /// The command or query.
    pub target: Target,
    /// The callers that may use it.
    pub access: Access,
}

/// The target of a route.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A command of an aggregate.
    Command {
        /// The aggregate.
        aggregate: AggregateName,
        /// The command.
        command: CommandName,
    },
    /// A query of the service, or an aggregate for the query for its view.
    Query(QueryName),
}

/// A read model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReadModel {
    /// Its version; another one rebuilds it from the log.
    pub version: u32,
    /// The SQL that creates its tables.
    pub schema: String,
    /// The events that it is made of.
    pub subscribes: Vec<EventRef>,
}

/// A subject whose messages become commands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Subscription {
    /// The subject, with wildcards.
    pub subject: String,
    /// The aggregate of the command.
    pub aggregate: AggregateName,
    /// The command.
    pub command: CommandName,
    /// The source of the aggregate's id. None: each message creates an aggregate.
    pub id: Option<IdSource>,
}

/// The source of an aggregate's id in a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdSource {
    /// A part of the subject, from 1.
    Part(u32),
    /// A member of the message's JSON.
    Member(String),
}

/// An event that is published as a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Publication {
    /// The event.
    pub event: EventRef,
    /// The subject, with a placeholder for the id.
    pub subject: String,
}

/// The placeholder in the subject of a publication for the aggregate's id.
const ID_IN_SUBJECT: &str = "{id}";

impl Publication {
    /// Returns the subject of one aggregate's event.
    pub(crate) fn subject_of(&self, id: &str) -> String {
        self.subject.replace(ID_IN_SUBJECT, id)
    }

    /// Returns the pattern of all subjects, as the manifest asks for it and operators grant it.
    pub(crate) fn pattern(&self) -> String {
        self.subject_of("*")
    }
}

/// Names that no service may have: `/admin/plugins/history` has one in the place of a service, and the host's
/// own subjects have the others behind `kontor.`.
const RESERVED: [&str; 5] = ["history", "kontor", "events", "dead-letters", "log"];

/// The prefix of a configuration key in the place of an origin: the origin of the URL under that key.
pub const CONFIGURED: &str = "config:";

/// The permissions that a service asks for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Permissions {
    /// The commands of other services' aggregates to send.
    pub commands: Vec<CommandRef>,
    /// The events of other services' aggregates to follow, to wait for, and to start sagas on.
    pub events: Vec<EventRef>,
    /// The services to query.
    pub services: Vec<String>,
    /// The origins to call.
    pub http: Vec<String>,
    /// The NATS subjects to publish on and to subscribe to.
    pub subjects: Vec<String>,
}

impl Manifest {
    /// Returns the aggregate with this name.
    pub fn aggregate(&self, name: &str) -> Option<&Aggregate> {
        self.aggregates.iter().find(|aggregate| aggregate.name == *name)
    }

    /// Returns whether one of these roles may read the views of all aggregates of this kind, whosever they
    /// are: by its readers, or by the access of a route to its view.
    pub fn may_read(&self, aggregate: &Aggregate, roles: &[Role]) -> bool {
        let is_named = |named: &[Role]| named.iter().any(|role| roles.contains(role));
        match &aggregate.readers {
            Some(readers) => is_named(&readers.roles),
            None => self.routes.iter().any(|route| match (&route.target, &route.access) {
                (Target::Query(query), Access::Roles(named)) => {
                    *query == aggregate.name.as_str() && is_named(named)
                }
                _ => false,
            }),
        }
    }

    /// Returns one of an aggregate's commands.
    pub fn command(&self, aggregate: &str, command: &str) -> Option<&Command> {
        self.aggregate(aggregate)?.command(command)
    }

    /// Returns the query with this name.
    pub fn query(&self, name: &str) -> Option<&Query> {
        self.queries.iter().find(|query| query.name == *name)
    }
}

impl Manifest {
    /// Checks the manifest. An error is one sentence: a malformed or repeated name, a route without a target.
    pub fn check(&self) -> Result<(), String> {
        check_names("a service", [self.service.as_str()])?;
        self.check_texts()?;
        if RESERVED.contains(&self.service.as_str()) {
            return Err(format!("{:?} is a name of the host's own; a service cannot have it", self.service));
        }
        check_names("an aggregate", self.aggregates.iter().map(|aggregate| aggregate.name.as_str()))?;
        let kinds = [model::SAGA, model::DEPLOYMENT, model::AUDIT, model::TOKEN];
        let of_host = |name: &str| kinds.contains(&name);
        if let Some(aggregate) = self.aggregates.iter().find(|aggregate| of_host(aggregate.name.as_str())) {
            return Err(format!("{:?} is the name of the host's own streams", aggregate.name));
        }
        for aggregate in &self.aggregates {
            let of = |kind: &str| format!("{kind} of {}", aggregate.name);
            check_names(&of("a command"), aggregate.commands.iter().map(|command| command.name.as_str()))?;
            check_names(&of("an event"), aggregate.events.iter().map(|event| event.name.as_str()))?;
        }
        check_names("a saga", self.sagas.iter().map(|saga| saga.name.as_str()))?;
        // An aggregate is a query too, so the two must not share a name.
        let queries = self.queries.iter().map(|query| query.name.as_str());
        check_names(
            "a query",
            queries.chain(self.aggregates.iter().map(|aggregate| aggregate.name.as_str())),
        )?;
        check_names("a setting", self.settings.iter().map(|setting| setting.key.as_str()))?;
        self.check_origins()?;
        self.check_events()?;
        self.subscriptions.iter().try_for_each(|subscription| self.check_subscription(subscription))?;
        self.publications.iter().try_for_each(|publication| self.check_publication(publication))?;
        self.routes.iter().try_for_each(|route| self.check_route(route))
    }

    /// Checks the texts that may be anything: a control character would be obeyed by the terminal of the
    /// operator who reads about them.
    fn check_texts(&self) -> Result<(), String> {
        let Permissions { commands, events, services, http, subjects } = &self.permissions;
        let followed = self.read_model.iter().flat_map(|model| &model.subscribes);
        let followed = followed.chain(self.sagas.iter().map(|saga| &saga.starts_on)).chain(events);
        let paths = self.routes.iter().map(|route| &route.path);
        let published = self.publications.iter().map(|publication| &publication.subject);
        let subscribed = self.subscriptions.iter().map(|subscription| &subscription.subject);
        let texts = [&self.version].into_iter().chain(paths).chain(published).chain(subscribed);
        let texts = texts.chain(services).chain(http).chain(subjects).cloned();
        let names = commands.iter().map(ToString::to_string).chain(followed.map(ToString::to_string));
        match texts.chain(names).find(|text| text.chars().any(char::is_control)) {
            Some(text) => Err(format!("{text:?} has a control character")),
            None => Ok(()),
        }
    }

    fn check_route(&self, route: &Route) -> Result<(), String> {
        let leads_somewhere = match &route.target {
            Target::Command { aggregate, command } => {
                self.command(aggregate.as_str(), command.as_str()).is_some()
            }
            Target::Query(name) => {
                self.query(name.as_str()).is_some() || self.aggregate(name.as_str()).is_some()
            }
        };
        match leads_somewhere && route.path.starts_with('/') {
            true => Ok(()),
            false => {
                Err(format!("the route {} {} leads to nothing in the manifest", route.method, route.path))
            }
        }
    }
}

impl Manifest {
    fn check_subscription(&self, subscription: &Subscription) -> Result<(), String> {
        let Subscription { subject, aggregate, command, id } = subscription;
        if self.command(aggregate.as_str(), command.as_str()).is_none() {
            return Err(format!(
                "messages of {subject} lead to {aggregate}.{command}, which is not in the manifest"
            ));
        }
        let parts = subject.split('.').count();
        match id {
            Some(IdSource::Part(part)) if !(1..=parts).contains(&(*part as usize)) => {
                Err(format!("{subject} has no part {part} for the aggregate's id"))
            }
            _ => self.check_subject(subject),
        }
    }

    fn check_publication(&self, publication: &Publication) -> Result<(), String> {
        let Publication { event: EventRef { aggregate, event }, subject } = publication;
        let known = self
            .aggregate(aggregate.as_str())
            .is_some_and(|aggregate| aggregate.events.iter().any(|declared| declared.name == *event));
        if !known {
            return Err(format!(
                "{subject} is published with {aggregate}.{event}, which is not in the manifest"
            ));
        }
        if subject.contains(['*', '>']) {
            return Err(format!(
                "{subject} is no subject to publish on: `{ID_IN_SUBJECT}` is all it may leave open"
            ));
        }
        self.check_subject(&publication.pattern())
    }

    /// Checks that the manifest asks for the subject, and that it is none of the host's or the servers' own.
    fn check_subject(&self, subject: &str) -> Result<(), String> {
        let mut parts = subject.split('.');
        let whole = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace);
        let own = |part: &str| part == "kontor" || part.starts_with('$') || part.contains(['*', '>']);
        if !parts.clone().all(whole) || parts.next().is_none_or(own) {
            return Err(format!("{subject:?} is no subject for a service: it begins with a word of its own"));
        }
        match self.permissions.subjects.iter().any(|asked| asked == subject) {
            true => Ok(()),
            false => Err(format!("it uses the subject {subject}, but does not ask for it")),
        }
    }
}

impl Permissions {
    /// Returns what an operator must grant inside the host.
    pub(crate) fn internal(&self) -> impl Iterator<Item = Grant> + '_ {
        Grant::internal(&self.commands, &self.events, &self.services, &self.subjects)
    }

    /// Returns everything that an operator must grant, as a signed statement names it: `service:payment`.
    pub fn requests(&self) -> impl Iterator<Item = String> + '_ {
        let http = self.http.iter().map(|origin| format!("http:{origin}"));
        self.internal().map(|grant| grant.to_string()).chain(http)
    }
}

impl Manifest {
    fn check_origins(&self) -> Result<(), String> {
        let mut keys = self.permissions.http.iter().filter_map(|asked| asked.strip_prefix(CONFIGURED));
        match keys.find(|key| !self.settings.iter().any(|setting| setting.key == *key)) {
            None => Ok(()),
            Some(key) => {
                Err(format!("it asks for HTTP to the origin under {key:?}, which is none of its settings"))
            }
        }
    }

    /// Checks that the manifest asks for the events of others that it follows or starts sagas on.
    fn check_events(&self) -> Result<(), String> {
        let followed = self.read_model.iter().flat_map(|model| &model.subscribes);
        let mut events = followed.chain(self.sagas.iter().map(|saga| &saga.starts_on));
        let allowed = |event: &EventRef| {
            self.aggregate(event.aggregate.as_str()).is_some() || self.permissions.events.contains(event)
        };
        match events.find(|event| !allowed(event)) {
            None => Ok(()),
            Some(event) => Err(format!("it follows {event} of another service, but does not ask for it")),
        }
    }
}

/// Maximum length of every name in a manifest. Names are parts of URLs, metrics and NATS subjects.
const MAX_NAME_LENGTH: usize = 64;

fn check_names<'a>(kind: &str, names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if name.len() > MAX_NAME_LENGTH || !is_kebab_case(name) {
            return Err(format!(
                "{name:?} is no name for {kind}: up to {MAX_NAME_LENGTH} characters in kebab-case"
            ));
        }
        if !seen.insert(name) {
            return Err(format!("{name:?} is the name of {kind} more than once"));
        }
    }
    Ok(())
}

fn is_kebab_case(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.split('-').all(word)
}

impl Aggregate {
    /// Returns the command with this name.
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == *name)
    }
}

#[cfg(test)]
mod tests;
