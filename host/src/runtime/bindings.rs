//! The contract as Rust types, and their conversion to the host's own.

use crate::contract as host;
use crate::model::{Caller, Json, Recorded, Rejection, Role};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "service",
    imports: {
        "kontor:service/services": async | trappable,
        "kontor:service/steps": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});

pub(crate) use self::kontor::service::{callers, config, logging, read_model, services, steps, types};
pub(crate) use exports::kontor::service::aggregates::{Compensation, Decision, Folded, Target};
pub(crate) use exports::kontor::service::{aggregates, manifest};

/// A text of a component that should be JSON and is not.
#[derive(Debug, thiserror::Error)]
#[error("{name} is not JSON")]
pub struct NotJson {
    name: String,
    source: serde_json::Error,
}

/// Checks a text that a component wrote. `name`: its name in messages.
pub(crate) fn json(name: &str, text: String) -> Result<Json, NotJson> {
    Json::parse(text).map_err(|source| NotJson { name: name.to_owned(), source })
}

/// The maximum size of a rejection's code: a few words.
const MAX_CODE_BYTES: usize = 128;
/// The maximum size of a rejection's message: one sentence.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// The maximum size of a rejection's details: a line each for the hundred lines of an order.
const MAX_DETAILS_BYTES: usize = 64 << 10;

/// The way in which a rejection breaks the contract. Rejections go into journals, problems and headers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidRejection {
    /// A part of it is too large.
    #[error("a rejection's {part} has more than {limit} bytes")]
    TooLarge {
        /// The part.
        part: &'static str,
        /// The limit of the part.
        limit: usize,
    },
    /// The details are not JSON.
    #[error(transparent)]
    NotJson(#[from] NotJson),
}

impl types::Rejection {
    pub(crate) fn into_host(self) -> Result<Rejection, InvalidRejection> {
        let details = self.details.as_ref().map_or(0, String::len);
        for (part, bytes, limit) in [
            ("code", self.code.len(), MAX_CODE_BYTES),
            ("message", self.message.len(), MAX_MESSAGE_BYTES),
            ("details", details, MAX_DETAILS_BYTES),
        ] {
            if bytes > limit {
                return Err(InvalidRejection::TooLarge { part, limit });
            }
        }
        let details = self.details.map(|details| json("a rejection's details", details)).transpose()?;
        Ok(Rejection { code: self.code, message: self.message, details })
    }
}

impl From<&Rejection> for types::Rejection {
    fn from(rejection: &Rejection) -> Self {
        Self {
            code: rejection.code.clone(),
            message: rejection.message.clone(),
            details: rejection.details.as_ref().map(|details| details.as_str().to_owned()),
        }
    }
}

impl From<&Recorded> for types::Event {
    fn from(event: &Recorded) -> Self {
        Self { name: event.name.as_str().to_owned(), payload: event.payload.as_str().to_owned() }
    }
}

impl From<&Recorded> for types::RecordedEvent {
    fn from(event: &Recorded) -> Self {
        Self {
            position: event.position.get(),
            aggregate: event.stream.aggregate().to_owned(),
            aggregate_id: event.stream.id().to_owned(),
            version: event.version.get(),
            name: event.name.as_str().to_owned(),
            payload: event.payload.as_str().to_owned(),
            id: event.id(),
            command_id: event.meta.command_id.to_string(),
            correlation_id: event.meta.correlation_id.as_str().to_owned(),
            time_ms: event.meta.time_ms,
            actor: event.meta.actor.as_str().to_owned(),
            via: event.meta.via.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&Caller> for types::Caller {
    fn from(caller: &Caller) -> Self {
        let Caller { subject, roles, on_behalf_of, via } = caller;
        Self {
            subject: subject.as_ref().map(ToString::to_string),
            roles: roles.iter().map(ToString::to_string).collect(),
            on_behalf_of: on_behalf_of.as_ref().map(ToString::to_string),
            via: via.as_ref().map(ToString::to_string),
        }
    }
}

impl manifest::Manifest {
    pub(crate) fn into_host(self) -> Result<host::Manifest, NotJson> {
        Ok(host::Manifest {
            service: self.service.into(),
            version: self.version,
            description: self.description,
            aggregates: each(self.aggregates, aggregate)?,
            sagas: self.sagas.into_iter().map(saga).collect(),
            queries: each(self.queries, query)?,
            routes: self.routes.into_iter().map(route).collect(),
            read_model: self.read_model.map(|model| host::ReadModel {
                version: model.version,
                schema: model.schema,
                subscribes: model.subscribes.into_iter().map(event_ref).collect(),
            }),
            subscriptions: self.subscriptions.into_iter().map(subscription).collect(),
            publications: self.publications.into_iter().map(publication).collect(),
            settings: each(self.settings, setting)?,
            permissions: host::Permissions {
                commands: self.permissions.commands.into_iter().map(command_ref).collect(),
                events: self.permissions.events.into_iter().map(event_ref).collect(),
                services: self.permissions.services,
                http: self.permissions.http,
                subjects: self.permissions.subjects,
            },
        })
    }
}

fn each<T, U>(items: Vec<T>, convert: fn(T) -> Result<U, NotJson>) -> Result<Vec<U>, NotJson> {
    items.into_iter().map(convert).collect()
}

fn aggregate(aggregate: manifest::Aggregate) -> Result<host::Aggregate, NotJson> {
    Ok(host::Aggregate {
        view: json(&format!("the view schema of {}", aggregate.name), aggregate.view)?,
        name: aggregate.name.into(),
        description: aggregate.description,
        state_version: aggregate.state_version,
        readers: aggregate
            .readers
            .map(|readers| host::Readers { owner: readers.owner, roles: roles(readers.roles) }),
        commands: each(aggregate.commands, |command| {
            Ok(host::Command {
                payload: json(&format!("the payload schema of {}", command.name), command.payload)?,
                name: command.name.into(),
                description: command.description,
                compensable: command.compensable,
            })
        })?,
        events: each(aggregate.events, |event| {
            Ok(host::Event {
                payload: json(&format!("the payload schema of {}", event.name), event.payload)?,
                name: event.name.into(),
                description: event.description,
            })
        })?,
    })
}

fn setting(setting: manifest::Setting) -> Result<host::Setting, NotJson> {
    Ok(host::Setting {
        schema: json(&format!("the schema of the setting {}", setting.key), setting.schema)?,
        key: setting.key,
        description: setting.description,
        required: setting.required,
    })
}

fn query(query: manifest::Query) -> Result<host::Query, NotJson> {
    Ok(host::Query {
        arguments: json(&format!("the arguments schema of {}", query.name), query.arguments)?,
        answer: json(&format!("the answer schema of {}", query.name), query.answer)?,
        name: query.name.into(),
        description: query.description,
    })
}

fn saga(saga: manifest::Saga) -> host::Saga {
    host::Saga { name: saga.name.into(), description: saga.description, starts_on: event_ref(saga.starts_on) }
}

fn subscription(subscription: manifest::Subscription) -> host::Subscription {
    host::Subscription {
        subject: subscription.subject,
        aggregate: subscription.command.aggregate.into(),
        command: subscription.command.command.into(),
        id: subscription.id.map(|source| match source {
            manifest::IdSource::Part(part) => host::IdSource::Part(part),
            manifest::IdSource::Member(name) => host::IdSource::Member(name),
        }),
    }
}

fn publication(publication: manifest::Publication) -> host::Publication {
    host::Publication { event: event_ref(publication.event), subject: publication.subject }
}

fn command_ref(command: manifest::CommandRef) -> host::CommandRef {
    host::CommandRef { aggregate: command.aggregate.into(), command: command.command.into() }
}

fn roles(roles: Vec<String>) -> Vec<Role> {
    roles.into_iter().map(Role::from).collect()
}

fn event_ref(event: manifest::EventRef) -> host::EventRef {
    host::EventRef { aggregate: event.aggregate.into(), event: event.event.into() }
}

fn route(route: manifest::Route) -> host::Route {
    host::Route {
        method: match route.method {
            manifest::Method::Get => host::Method::Get,
            manifest::Method::Post => host::Method::Post,
            manifest::Method::Put => host::Method::Put,
            manifest::Method::Delete => host::Method::Delete,
            manifest::Method::Patch => host::Method::Patch,
        },
        path: route.path,
        target: match route.target {
            manifest::RouteTarget::Command(target) => {
                host::Target::Command { aggregate: target.aggregate.into(), command: target.command.into() }
            }
            manifest::RouteTarget::Query(name) => host::Target::Query(name.into()),
        },
        access: match route.access {
            manifest::Access::Anyone => host::Access::Anyone,
            manifest::Access::SignedIn => host::Access::SignedIn,
            manifest::Access::Roles(names) => host::Access::Roles(roles(names)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_small() {
        let text = |bytes| "x".repeat(bytes);
        let json = |bytes: usize| Some(format!("\"{}\"", text(bytes - 2)));
        let table = [
            (text(MAX_CODE_BYTES), text(MAX_MESSAGE_BYTES), json(MAX_DETAILS_BYTES), None),
            (text(MAX_CODE_BYTES + 1), String::new(), None, Some("code has more than 128 bytes")),
            (String::new(), text(MAX_MESSAGE_BYTES + 1), None, Some("message has more than 4096 bytes")),
            (
                String::new(),
                String::new(),
                json(MAX_DETAILS_BYTES + 1),
                Some("details has more than 65536 bytes"),
            ),
        ];
        for (code, message, details, expected) in table {
            let error = types::Rejection { code, message, details }.into_host().err();
            let expected = expected.map(|text| format!("a rejection's {text}"));
            assert_eq!(error.map(|error| error.to_string()), expected);
        }
    }
}
