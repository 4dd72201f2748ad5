//! What a component says about itself, as the host keeps it. The shapes and their meaning: `wit/manifest.wit`.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{self, AggregateName, CommandName, EventName, Json, QueryName, SagaName, ServiceName};

#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    pub service: ServiceName,
    pub version: String,
    pub description: String,
    pub aggregates: Vec<Aggregate>,
    pub sagas: Vec<Saga>,
    pub queries: Vec<Query>,
    pub routes: Vec<Route>,
    pub read_model: Option<ReadModel>,
    pub subscriptions: Vec<Subscription>,
    pub publications: Vec<Publication>,
    pub permissions: Permissions,
}

#[derive(Clone, Debug, Serialize)]
pub struct Aggregate {
    pub name: AggregateName,
    pub description: String,
    pub state_version: u32,
    /// JSON Schema.
    pub view: Json,
    pub commands: Vec<Command>,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Command {
    pub name: CommandName,
    pub description: String,
    /// JSON Schema.
    pub payload: Json,
    pub compensable: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Event {
    pub name: EventName,
    pub description: String,
    /// JSON Schema.
    pub payload: Json,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct EventRef {
    pub aggregate: AggregateName,
    pub event: EventName,
}

#[derive(Clone, Debug, Serialize)]
pub struct Saga {
    pub name: SagaName,
    pub description: String,
    pub starts_on: EventRef,
}

#[derive(Clone, Debug, Serialize)]
pub struct Query {
    pub name: QueryName,
    pub description: String,
    /// JSON Schema.
    pub arguments: Json,
    /// JSON Schema.
    pub answer: Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    Command {
        aggregate: AggregateName,
        command: CommandName,
    },
    /// A query of the service, or one of its aggregates: that is the query for its view.
    Query(QueryName),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReadModel {
    pub version: u32,
    /// SQL.
    pub schema: String,
    pub subscribes: Vec<EventRef>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Subscription {
    pub subject: String,
    pub aggregate: AggregateName,
    pub command: CommandName,
    pub id: Option<IdSource>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdSource {
    /// From 1.
    Part(u32),
    Member(String),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Publication {
    pub event: EventRef,
    pub subject: String,
}

/// What stands in the subject of a publication for the aggregate's id.
const ID_IN_SUBJECT: &str = "{id}";

impl Publication {
    /// The subject of one aggregate's event.
    pub(crate) fn subject_of(&self, id: &str) -> String {
        self.subject.replace(ID_IN_SUBJECT, id)
    }

    /// All subjects, as one is asked for and granted.
    pub(crate) fn pattern(&self) -> String {
        self.subject_of("*")
    }
}

/// What stands in the place of a service in `/admin/plugins/history`, and behind `kontor.` in the host's own subjects.
const RESERVED: [&str; 5] = ["history", "kontor", "events", "dead-letters", "log"];

/// What stands before a configuration key in the place of an origin: the origin of the URL under that key.
pub const CONFIGURED: &str = "config:";

#[derive(Clone, Debug, Default, Serialize)]
pub struct Permissions {
    pub services: Vec<String>,
    pub config: Vec<String>,
    pub http: Vec<String>,
    pub subjects: Vec<String>,
}

impl Manifest {
    pub fn aggregate(&self, name: &str) -> Option<&Aggregate> {
        self.aggregates.iter().find(|aggregate| aggregate.name == *name)
    }

    /// One of an aggregate's commands.
    pub fn command(&self, aggregate: &str, command: &str) -> Option<&Command> {
        self.aggregate(aggregate)?.command(command)
    }

    pub fn query(&self, name: &str) -> Option<&Query> {
        self.queries.iter().find(|query| query.name == *name)
    }
}

impl Manifest {
    /// Says what is wrong with it, in one sentence: names that are none or stand twice, routes that lead nowhere.
    pub fn check(&self) -> Result<(), String> {
        check_names("a service", [self.service.as_str()])?;
        if RESERVED.contains(&self.service.as_str()) {
            return Err(format!("{:?} is a name of the host's own, and none for a service", self.service));
        }
        check_names("an aggregate", self.aggregates.iter().map(|aggregate| aggregate.name.as_str()))?;
        let of_host = |name: &str| [model::SAGA, model::DEPLOYMENT].contains(&name);
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
        self.permissions.check()?;
        self.subscriptions.iter().try_for_each(|subscription| self.check_subscription(subscription))?;
        self.publications.iter().try_for_each(|publication| self.check_publication(publication))?;
        self.routes.iter().try_for_each(|route| self.check_route(route))
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
                "messages of {subject} lead to {aggregate}.{command}, which it does not have"
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
            return Err(format!("{subject} is published with {aggregate}.{event}, which it does not have"));
        }
        if subject.contains(['*', '>']) {
            return Err(format!(
                "{subject} is no subject to publish on: `{ID_IN_SUBJECT}` is all it may leave open"
            ));
        }
        self.check_subject(&publication.pattern())
    }

    /// The subject must be asked for, and none of the host's or the servers' own.
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
    fn check(&self) -> Result<(), String> {
        let keys = self.http.iter().filter_map(|asked| asked.strip_prefix(CONFIGURED));
        match keys.into_iter().find(|key| !self.config.iter().any(|known| known == key)) {
            None => Ok(()),
            Some(key) => Err(format!(
                "it asks for HTTP to the origin under {key:?}, but not for that configuration key"
            )),
        }
    }
}

/// The longest name of anything in a manifest. Names stand in URLs, metrics and NATS subjects.
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
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case() {
        for good in ["order", "place-order", "v2", "a-1"] {
            assert!(is_kebab_case(good), "{good}");
        }
        for bad in ["", "Order", "order_line", "-order", "order-", "a--b", "2nd", "größe"] {
            assert!(!is_kebab_case(bad), "{bad}");
        }
    }

    #[test]
    fn whoever_calls_a_configured_origin_may_read_the_key() {
        let asks = |config: &[&str], http: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            Permissions { config: owned(config), http: owned(http), ..Permissions::default() }.check()
        };
        assert_eq!(asks(&["url"], &["config:url", "https://payments.example"]), Ok(()));
        assert!(asks(&["limit"], &["config:url"]).unwrap_err().contains("\"url\""));
    }

    fn parcels(subscription: Option<(&str, Option<IdSource>)>, publication: Option<&str>) -> Manifest {
        let (aggregate, command, event): (AggregateName, CommandName, EventName) =
            ("parcel".into(), "receive".into(), "parcel-received".into());
        let description = String::new();
        let payload = Json::empty_object();
        let subscriptions = subscription.into_iter().map(|(subject, id)| {
            let (aggregate, command) = (aggregate.clone(), command.clone());
            Subscription { subject: subject.to_owned(), aggregate, command, id }
        });
        let publications = publication.into_iter().map(|subject| {
            let event = EventRef { aggregate: aggregate.clone(), event: event.clone() };
            Publication { event, subject: subject.to_owned() }
        });
        let subjects = ["carrier.*.received", "shop.*.received", "kontor.x", "$SYS.x", "*.x", "a..b", "a b"];
        Manifest {
            service: "parcels".into(),
            version: "1.0.0".to_owned(),
            description: description.clone(),
            subscriptions: subscriptions.collect(),
            publications: publications.collect(),
            aggregates: vec![Aggregate {
                name: aggregate.clone(),
                description: description.clone(),
                state_version: 1,
                view: payload.clone(),
                commands: vec![Command {
                    name: command.clone(),
                    description: description.clone(),
                    payload: payload.clone(),
                    compensable: false,
                }],
                events: vec![Event { name: event.clone(), description, payload }],
            }],
            sagas: Vec::new(),
            queries: Vec::new(),
            routes: Vec::new(),
            read_model: None,
            permissions: Permissions {
                subjects: subjects.map(str::to_owned).into(),
                ..Permissions::default()
            },
        }
    }

    #[test]
    fn a_service_uses_the_subjects_that_it_asks_for_and_none_of_the_hosts() {
        for (subject, id, refused) in [
            ("carrier.*.received", None, None),
            ("carrier.*.received", Some(IdSource::Part(3)), None),
            ("carrier.*.received", Some(IdSource::Part(4)), Some("has no part 4")),
            ("carrier.*.received", Some(IdSource::Part(0)), Some("has no part 0")),
            ("carrier.*.lost", None, Some("does not ask for it")),
            ("kontor.x", None, Some("is no subject for a service")),
            ("$SYS.x", None, Some("is no subject for a service")),
            ("*.x", None, Some("is no subject for a service")),
            ("a..b", None, Some("is no subject for a service")),
            ("a b", None, Some("is no subject for a service")),
        ] {
            let told = parcels(Some((subject, id)), None).check().err();
            assert_eq!(told.is_some(), refused.is_some(), "{subject}: {told:?}");
            assert!(refused.is_none_or(|refused| told.as_ref().unwrap().contains(refused)), "{told:?}");
        }
        for (subject, refused) in [
            ("shop.{id}.received", None),
            ("shop.*.received", Some("is no subject to publish on")),
            ("shop.{id}.lost", Some("does not ask for it")),
            ("kontor.x", Some("is no subject for a service")),
        ] {
            let told = parcels(None, Some(subject)).check().err();
            assert_eq!(told.is_some(), refused.is_some(), "{subject}: {told:?}");
            assert!(refused.is_none_or(|refused| told.as_ref().unwrap().contains(refused)), "{told:?}");
        }
    }

    #[test]
    fn a_name_stands_once() {
        let names = ["a", "b", "a"];
        assert!(check_names("a saga", names).unwrap_err().contains("more than once"));
    }
}
