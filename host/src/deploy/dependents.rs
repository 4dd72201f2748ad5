//! The running services that need another one: by its queries, its commands, its events or its messages.

use std::fmt;

use crate::contract::subjects::overlap;
use crate::contract::{EventRef, Manifest};
use crate::model::ServiceName;

/// A service that needs another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dependent {
    service: ServiceName,
    /// The needs as parts of a sentence: `sends product.ship`.
    needs: Vec<String>,
}

impl fmt::Display for Dependent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.service, self.needs.join(", "))
    }
}

/// Returns the services that need `leaving`, which may be among them.
pub(super) fn dependents<'m>(
    running: impl IntoIterator<Item = &'m Manifest>,
    leaving: &Manifest,
) -> Vec<Dependent> {
    let others = running.into_iter().filter(|other| other.service != leaving.service);
    let dependents =
        others.map(|other| Dependent { service: other.service.clone(), needs: needs(other, leaving) });
    dependents.filter(|dependent| !dependent.needs.is_empty()).collect()
}

/// Returns everything that a service needs of another one, in its own words.
fn needs(other: &Manifest, leaving: &Manifest) -> Vec<String> {
    let permissions = &other.permissions;
    let of_leaving = |event: &&EventRef| leaving.aggregate(event.aggregate.as_str()).is_some();
    let queries = permissions.services.iter().any(|asked| *asked == leaving.service.as_str());
    let queries = queries.then(|| "queries it".to_owned());

    let sent = permissions.commands.iter();
    let sent = sent.filter(|command| leaving.aggregate(command.aggregate.as_str()).is_some());
    let sent = sent.map(|command| format!("sends {command}"));

    let starting = other.sagas.iter().filter(|saga| of_leaving(&&saga.starts_on));
    let starting = starting.map(|saga| format!("starts {} on {}", saga.name, saga.starts_on));

    let followed: Vec<_> = other.read_model.iter().flat_map(|model| &model.subscribes).collect();
    let is_named = |event: &&EventRef| {
        followed.contains(event) || other.sagas.iter().any(|saga| saga.starts_on == **event)
    };
    // Sagas may wait for every event that the manifest asks for.
    let awaited = permissions.events.iter().filter(of_leaving).filter(|event| !is_named(event));
    let awaited = awaited.map(|event| format!("may wait for {event}"));
    let followed = followed.iter().copied().filter(of_leaving).map(|event| format!("follows {event}"));

    let published: Vec<_> = leaving.publications.iter().map(|publication| publication.pattern()).collect();
    let taken = other.subscriptions.iter().map(|subscription| &subscription.subject);
    let taken = taken.filter(|subject| published.iter().any(|pattern| overlap(subject, pattern)));
    let taken = taken.map(|subject| format!("takes messages on {subject}"));
    queries.into_iter().chain(sent).chain(starting).chain(followed).chain(awaited).chain(taken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{CommandRef, Publication, ReadModel, Saga, Subscription, fixtures};

    /// Returns a service that has nothing to do with `order`, the service of the fixture.
    fn stranger() -> Manifest {
        let mut manifest = fixtures::manifest();
        manifest.service = "stranger".into();
        (manifest.aggregates, manifest.sagas, manifest.read_model) = (Vec::new(), Vec::new(), None);
        manifest.permissions = Default::default();
        (manifest.subscriptions, manifest.publications) = (Vec::new(), Vec::new());
        manifest
    }

    #[test]
    fn a_service_needs_another_by_its_queries_commands_events_and_messages() {
        type Change = fn(&mut Manifest);
        let mut leaving = fixtures::manifest();
        let created = || EventRef::new("order", "order-created");
        leaving.publications =
            vec![Publication { event: created(), subject: "shop.{id}.created".to_owned() }];
        let table: [(Change, Option<&str>); 8] = [
            (|_| {}, None),
            (|other| other.permissions.services = vec!["order".to_owned()], Some("queries it")),
            (
                |other| other.permissions.commands = vec![CommandRef::new("order", "cancel")],
                Some("sends order.cancel"),
            ),
            (|other| other.permissions.commands = vec![CommandRef::new("payment", "cancel")], None),
            (
                |other| {
                    let event = EventRef::new("order", "order-created");
                    other.permissions.events = vec![event.clone()];
                    other.sagas =
                        vec![Saga { name: "thank".into(), description: String::new(), starts_on: event }];
                },
                Some("starts thank on order.order-created"),
            ),
            (
                |other| {
                    let event = EventRef::new("order", "order-created");
                    other.permissions.events = vec![event.clone()];
                    other.read_model =
                        Some(ReadModel { version: 1, schema: String::new(), subscribes: vec![event] });
                },
                Some("follows order.order-created"),
            ),
            (
                |other| other.permissions.events = vec![EventRef::new("order", "order-shipped")],
                Some("may wait for order.order-shipped"),
            ),
            (
                |other| {
                    other.subscriptions = vec![Subscription {
                        subject: "shop.>".to_owned(),
                        aggregate: "letter".into(),
                        command: "send".into(),
                        id: None,
                    }];
                },
                Some("takes messages on shop.>"),
            ),
        ];
        for (change, expected) in table {
            let mut other = stranger();
            change(&mut other);
            let found = dependents([&leaving, &other], &leaving);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            let expected = expected.map(|needs| format!("stranger ({needs})"));
            assert_eq!(found, Vec::from_iter(expected));
        }
    }
}
