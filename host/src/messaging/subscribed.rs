//! A subscription of a running service: its durable consumer, and the commands of its messages.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use serde_json::Value;

use super::message_streams::CONSUMER;
use crate::contract::{IdSource, Problem, Subscription, Violation, payload};
use crate::deployed::Deployed;
use crate::model::{
    AggregateName, Caller, Command, CommandId, CommandName, Intent, Origin, Precondition, ServiceName,
    StreamId, hashed_uuid,
};
use crate::warning::Warning;

/// The time after which the servers deliver an unacknowledged message again: longer than a command takes.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// The reason why a subscription cannot be served. The gates refuse such a manifest.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubscriptionError {
    #[error("there is no command {aggregate}.{command}")]
    NoCommand { aggregate: AggregateName, command: CommandName },
}

/// A subscription of a running service.
pub(super) struct Subscribed {
    pub(super) service: ServiceName,
    pub(super) subscription: Subscription,
    pub(super) warning: Warning,
}

/// A message that is to become a command.
#[derive(Clone, Copy)]
pub(super) struct Received<'m> {
    pub(super) subject: &'m str,
    /// The id of the message, which is the same at each delivery.
    pub(super) id: &'m str,
    pub(super) headers: Option<&'m HeaderMap>,
    pub(super) payload: &'m [u8],
}

impl Subscribed {
    pub(super) fn new(
        deployed: &Deployed,
        service: &ServiceName,
        subscription: &Subscription,
    ) -> Result<Self, SubscriptionError> {
        let Subscription { subject, aggregate, command, .. } = subscription;
        let component = deployed.owner(aggregate.as_str());
        let declared = component
            .and_then(|component| component.manifest().command(aggregate.as_str(), command.as_str()));
        declared.ok_or_else(|| SubscriptionError::NoCommand {
            aggregate: aggregate.clone(),
            command: command.clone(),
        })?;
        Ok(Self {
            service: service.clone(),
            warning: Warning::new(format!("messages on {subject} are not taken, or not all")),
            subscription: subscription.clone(),
        })
    }

    /// Returns the durable consumer of this subscription, which is the same for all versions of the service.
    pub(super) fn consumer(&self) -> pull::Config {
        let Subscription { subject, aggregate, command, .. } = &self.subscription;
        pull::Config {
            durable_name: Some(consumer_name(&self.service, &self.subscription)),
            description: Some(format!("{subject} to {aggregate}.{command} of {}", self.service)),
            filter_subject: subject.clone(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // The host counts the deliveries itself, because some do not count.
            max_deliver: -1,
            ..pull::Config::default()
        }
    }

    /// Returns the command of a message.
    pub(super) fn command(&self, caller: &Caller, received: Received<'_>) -> Result<Command, Problem> {
        let Received { subject, id, payload: bytes, .. } = received;
        let payload = payload(bytes)?;
        let command = CommandId::from_key(id);
        let aggregate_id = match &self.subscription.id {
            None => Some(command.as_str().to_owned()),
            Some(IdSource::Part(part)) => {
                let part = subject.split('.').nth(*part as usize - 1);
                part.map(super::cloud_event::id_of)
            }
            Some(IdSource::Member(name)) => {
                let normal = payload.normalized();
                let payload = normal.map_err(|error| Problem::invalid_payload(vec![error.into()]))?.value;
                let id = payload.get(name).and_then(Value::as_str).ok_or_else(|| no_text(name))?;
                Some(id.to_owned())
            }
        };
        let via = format!("message:{}", self.subscription.subject).into();
        Ok(Command {
            stream: StreamId::new(self.subscription.aggregate.as_str(), &aggregate_id.unwrap_or_default())?,
            origin: Origin {
                caller: Caller { via: Some(via), ..caller.clone() },
                correlation_id: command.shared().into(),
                causation_id: None,
            },
            id: command,
            repeatable: true,
            keyed: false,
            name: self.subscription.command.clone(),
            payload,
            intent: Intent::Decide,
            precondition: Precondition::default(),
            journal: None,
        })
    }
}

/// Returns the name of the durable consumer of a subscription.
pub(super) fn consumer_name(service: &ServiceName, subscription: &Subscription) -> String {
    let Subscription { subject, aggregate, command, .. } = subscription;
    // A consumer's name may not have the dots and stars of a subject.
    let hash = hashed_uuid(&[subject.as_bytes()]).simple().to_string();
    format!("{CONSUMER}{service}-{aggregate}-{command}-{}", &hash[..8])
}

/// Returns the problem of a message in which the member with the aggregate's id is no text.
fn no_text(member: &str) -> Problem {
    let (pointer, message) = (format!("/{member}"), "is no text, as the id of an aggregate is".to_owned());
    Problem::invalid_payload(vec![Violation { pointer, message }])
}

#[cfg(test)]
mod fuzz {
    use proptest::prelude::*;

    use super::tests::subscribed;
    use super::*;
    use crate::contract::fuzz::{is_clear, near, near_text};

    const WORDS: &[&str] =
        &["%", "%2E", "%FF", ".", "..", "\u{e9}", "1e999", "[[[[[[", "\\ud800", "\"parcel\":", "null"];

    proptest! {
        #[test]
        fn a_message_is_a_command_or_refused_with_a_sentence(
            subject in near_text(&["carrier.A-1.received"], WORDS),
            id in near_text(&["m1"], WORDS),
            payload in near(vec![br#"{"parcel":"A-1","weight":2.5}"#.to_vec()], WORDS),
        ) {
            for source in [None, Some(IdSource::Part(2)), Some(IdSource::Member("parcel".to_owned()))] {
                let received = Received { subject: &subject, id: &id, headers: None, payload: &payload };
                if let Err(problem) = subscribed(source).command(&Caller::default(), received) {
                    is_clear(&problem)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn subscribed(id: Option<IdSource>) -> Subscribed {
        Subscribed {
            service: "parcels".into(),
            subscription: Subscription {
                subject: "carrier.*.received".to_owned(),
                aggregate: "parcel".into(),
                command: "receive".into(),
                id,
            },
            warning: Warning::new("messages are not taken"),
        }
    }

    #[test]
    fn the_aggregates_id_comes_from_where_the_subscription_says() {
        let new = CommandId::from_key("m1").to_string();
        let table = [
            (None, "carrier.A-1.received", "{}", Ok(&*new)),
            (Some(IdSource::Part(2)), "carrier.A-1.received", "{}", Ok("A-1")),
            (Some(IdSource::Part(2)), "carrier.a%2Eb.received", "{}", Ok("a.b")),
            (Some(IdSource::Part(2)), "carrier.a+b.received", "{}", Err("invalid-id")),
            (Some(IdSource::Member("parcel".to_owned())), "x", r#"{"parcel":"A-1"}"#, Ok("A-1")),
            (Some(IdSource::Member("parcel".to_owned())), "x", r#"{"parcel":7}"#, Err("invalid-payload")),
            (None, "x", "{", Err("invalid-json")),
        ];
        for (source, subject, payload, expected) in table {
            let received = Received { subject, id: "m1", headers: None, payload: payload.as_bytes() };
            let command = subscribed(source).command(&Caller::default(), received);
            let id = command.map(|command| command.stream.id().to_owned());
            let id = id.map_err(|problem| (problem.code().to_owned(), problem.is_final()));
            let expected = expected.map(str::to_owned).map_err(|code| (code.to_owned(), true));
            assert_eq!(id, expected, "{subject} {payload}");
        }
    }
}
