//! The running set of services.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::contract::EventRef;
use crate::model::{AggregateName, EventName, Meta, SagaId, SagaName, ServiceName, StreamId, event_id};
use crate::runtime::Component;

/// The services that run together. A set never changes; another one replaces it.
#[derive(Default)]
pub struct Deployed {
    /// The services, by name.
    services: BTreeMap<ServiceName, Component>,
    /// The service of each aggregate, by the aggregate's name.
    aggregates: HashMap<AggregateName, Component>,
    /// The sagas that an event starts, by the aggregate's name and the event's.
    triggers: HashMap<AggregateName, HashMap<EventName, Vec<Trigger>>>,
}

/// A saga that an event starts.
#[derive(Clone)]
pub struct Trigger {
    /// The component that has the saga.
    pub component: Component,
    /// The name of the saga.
    pub saga: SagaName,
}

/// The reason why services cannot run side by side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceConflict {
    /// Two services have an aggregate of the same name.
    #[error("the aggregate {aggregate} belongs to two services, {one} and {other}")]
    Aggregate {
        /// The name of the aggregate.
        aggregate: AggregateName,
        /// One of the services.
        one: ServiceName,
        /// The other service.
        other: ServiceName,
    },
    /// Two components are versions of the same service.
    #[error("the service {0} is there twice")]
    Service(ServiceName),
}

impl Deployed {
    /// Returns the set of these services. Fails if they cannot run side by side.
    pub fn new(components: impl IntoIterator<Item = Component>) -> Result<Self, ServiceConflict> {
        let mut deployed = Self::default();
        for component in components {
            deployed.add(component)?;
        }
        Ok(deployed)
    }

    fn add(&mut self, component: Component) -> Result<(), ServiceConflict> {
        let manifest = component.manifest().clone();
        for aggregate in &manifest.aggregates {
            if let Some(other) = self.aggregates.insert(aggregate.name.clone(), component.clone()) {
                return Err(ServiceConflict::Aggregate {
                    aggregate: aggregate.name.clone(),
                    one: other.manifest().service.clone(),
                    other: manifest.service.clone(),
                });
            }
        }
        for saga in &manifest.sagas {
            let EventRef { aggregate, event } = saga.starts_on.clone();
            let trigger = Trigger { component: component.clone(), saga: saga.name.clone() };
            self.triggers.entry(aggregate).or_default().entry(event).or_default().push(trigger);
        }
        match self.services.insert(manifest.service.clone(), component) {
            None => Ok(()),
            Some(_) => Err(ServiceConflict::Service(manifest.service.clone())),
        }
    }

    /// Returns the set in which these services replace those of the same names. Fails if they cannot run side
    /// by side.
    pub fn with(&self, new: &[Component]) -> Result<Self, ServiceConflict> {
        let stays =
            |old: &&Component| !new.iter().any(|new| new.manifest().service == old.manifest().service);
        Self::new(self.services().filter(stays).chain(new).cloned())
    }

    /// Returns all services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Component> {
        self.services.values()
    }

    /// Returns a service by its name.
    pub fn service(&self, name: &str) -> Option<&Component> {
        self.services.get(name)
    }

    /// Returns the service that an aggregate belongs to.
    pub fn owner(&self, aggregate: &str) -> Option<&Component> {
        self.aggregates.get(aggregate)
    }

    /// Returns the sagas that an event starts, each with the id of its run. `index` is the event's place
    /// among those of its command.
    pub fn started_by(
        &self,
        stream: &StreamId,
        event: &str,
        index: u32,
        meta: &Meta,
    ) -> impl Iterator<Item = (SagaId, &Trigger)> {
        let triggers = self.triggers.get(stream.aggregate()).and_then(|events| events.get(event));
        triggers.into_iter().flatten().map(move |trigger| {
            let id = event_id(&meta.command_id, index);
            (SagaId::started_by(&id, &trigger.saga, meta.time_ms), trigger)
        })
    }
}

/// The set of services that runs.
#[derive(Default)]
pub struct Registry {
    current: ArcSwap<Deployed>,
    changes: watch::Sender<()>,
}

impl Registry {
    /// Returns a registry in which a set runs.
    pub fn of(deployed: Deployed) -> Self {
        Self { current: ArcSwap::from_pointee(deployed), ..Self::default() }
    }

    /// Returns the running set.
    pub fn current(&self) -> Arc<Deployed> {
        self.current.load_full()
    }

    /// Replaces the running set.
    pub fn replace(&self, deployed: Deployed) {
        self.current.store(Arc::new(deployed));
        self.changes.send_replace(());
    }

    /// Returns a signal for each replacement of the running set.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}
