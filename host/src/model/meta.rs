//! The metadata of events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ANONYMOUS, Actor, Caller, CommandId, CommandName, CorrelationId, Digest, Role};

/// The metadata that all events of one command share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The id of the command.
    pub command_id: CommandId,
    /// The name of the command.
    pub command: CommandName,
    /// The hash of the command's name and payload, which distinguishes a repeated command from another one
    /// with the same id.
    pub fingerprint: u64,
    /// The id that everything that follows from one request shares.
    pub correlation_id: CorrelationId,
    /// The id of the event that caused the command. `None`: a client sent it.
    pub causation_id: Option<Arc<str>>,
    /// The component that decided. `None`: the stream is the host's own.
    pub digest: Option<Digest>,
    /// The time of the command, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// The subject of the caller that sent the command, or that started the saga which sent it.
    pub actor: Actor,
    /// The roles of the subject.
    #[serde(default, skip_serializing_if = "<[Role]>::is_empty")]
    pub roles: Arc<[Role]>,
    /// See [`Caller::on_behalf_of`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Actor>,
    /// See [`Caller::via`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Actor>,
}

impl Meta {
    /// Returns the metadata of a command with nothing but its id and its caller. The roles of a caller that
    /// has not signed in follow from the host's configuration, so they are left out.
    pub fn of(command_id: CommandId, caller: &Caller) -> Self {
        Self {
            command_id,
            command: CommandName::default(),
            fingerprint: 0,
            correlation_id: CorrelationId::default(),
            causation_id: None,
            digest: None,
            time_ms: 0,
            actor: caller.actor(),
            roles: caller.subject.as_ref().map(|_| caller.roles.clone()).unwrap_or_default(),
            on_behalf_of: caller.on_behalf_of.clone(),
            via: caller.via.clone(),
        }
    }

    /// Returns the caller that sent the command, or `nobody` if it had not signed in.
    pub fn caller(&self, nobody: &Caller) -> Caller {
        let (on_behalf_of, via) = (self.on_behalf_of.clone(), self.via.clone());
        match self.actor == ANONYMOUS {
            true => Caller { on_behalf_of, via, ..nobody.clone() },
            false => {
                Caller { subject: Some(self.actor.clone()), roles: self.roles.clone(), on_behalf_of, via }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_the_caller_but_no_roles_of_nobody() {
        let operator = Caller::unauthenticated_operator();
        let cleo = Caller { roles: ["clerk".into()].into(), ..Caller::named("cleo") };
        let saga = Caller { via: Some("saga:1".into()), ..cleo.clone() };
        for caller in [&cleo, &saga, &operator] {
            assert_eq!(Meta::of(CommandId::new(), caller).caller(&operator), *caller);
        }
        let of_operator = Meta::of(CommandId::new(), &operator);
        assert!(of_operator.roles.is_empty());
        assert_eq!(of_operator.caller(&Caller::default()), Caller::default());
    }
}
