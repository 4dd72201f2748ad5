//! The permissions of components while they run: they may use what their manifest asks for and an operator
//! has granted.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use super::call::Denied;
use super::instance_data::Identity;
use crate::contract::{CommandRef, EventRef, Grant};
use crate::model::{Recorded, ServiceName};

/// The grants by service.
pub(crate) type Grants = HashMap<ServiceName, HashSet<Grant>>;

/// The grants that are in force. A running host only adds to them: a component uses those that its own
/// manifest asks for, and sagas end on earlier components. The default grants everything that a manifest asks
/// for, because a component in a test has no operator.
#[derive(Default)]
pub(super) struct GrantsInForce(RwLock<Option<Grants>>);

impl GrantsInForce {
    pub(super) fn enforce(&self, grants: Grants) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(grants);
    }

    pub(super) fn add(&self, grants: Grants) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = &mut *known else { return };
        for (service, added) in grants {
            known.entry(service).or_default().extend(added);
        }
    }

    fn has(&self, service: &ServiceName, grant: &Grant) -> bool {
        let grants = self.0.read().unwrap_or_else(PoisonError::into_inner);
        grants.as_ref().is_none_or(|grants| grants.get(service).is_some_and(|own| own.contains(grant)))
    }
}

impl Identity {
    /// Fails unless a saga of the component may send a command.
    pub(super) fn may_send(&self, aggregate: &str, command: &str) -> Result<(), Denied> {
        if self.owns(aggregate) {
            return Ok(());
        }
        let mut commands = self.manifest.permissions.commands.iter();
        let asked = commands.find(|asked| asked.aggregate == *aggregate && asked.command == *command);
        let grant = Grant::Command(asked.cloned().unwrap_or_else(|| CommandRef::new(aggregate, command)));
        self.check(asked.is_some(), grant)
    }

    /// Fails unless the component may see an event.
    pub(super) fn may_see(&self, aggregate: &str, event: &str) -> Result<(), Denied> {
        if self.owns(aggregate) {
            return Ok(());
        }
        let mut events = self.manifest.permissions.events.iter();
        let asked = events.find(|asked| asked.aggregate == *aggregate && asked.event == *event);
        let grant = Grant::Event(asked.cloned().unwrap_or_else(|| EventRef::new(aggregate, event)));
        self.check(asked.is_some(), grant)
    }

    /// Fails unless the component may see all of these events. Events of one kind are checked once in a row.
    pub(super) fn may_see_all(&self, events: &[Recorded]) -> Result<(), Denied> {
        let alike = |one: &Recorded, next: &Recorded| {
            (one.stream.aggregate(), &one.name) == (next.stream.aggregate(), &next.name)
        };
        let mut firsts = events.chunk_by(alike).filter_map(<[Recorded]>::first);
        firsts.try_for_each(|event| self.may_see(event.stream.aggregate(), event.name.as_str()))
    }

    /// Fails unless the component may query a service.
    pub(super) fn may_query(&self, service: &str) -> Result<(), Denied> {
        if self.manifest.service == *service {
            return Ok(());
        }
        let asked = self.manifest.permissions.services.iter().any(|asked| asked == service);
        self.check(asked, Grant::Service(service.to_owned()))
    }

    fn owns(&self, aggregate: &str) -> bool {
        self.manifest.aggregate(aggregate).is_some()
    }

    fn check(&self, asked: bool, grant: Grant) -> Result<(), Denied> {
        let service = &self.manifest.service;
        match asked {
            false => Err(Denied::NotRequested(grant)),
            true if self.grants.has(service, &grant) => Ok(()),
            true => Err(Denied::NotGranted { grant, service: service.clone() }),
        }
    }
}
