//! The running set of services.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::contract::EventRef;
use crate::model::{AggregateName, EventName, Meta, SagaId, SagaName, ServiceName, StreamId, event_id};
use crate::runtime::Component;

/// One set of services that runs together; never changes, only gets replaced.
#[derive(Default)]
pub struct Deployed {
    /// By the service's name.
    services: BTreeMap<ServiceName, Component>,
    /// By the aggregate's name.
    aggregates: HashMap<AggregateName, Component>,
    /// The sagas that an event starts, by the aggregate's name and the event's.
    triggers: HashMap<AggregateName, HashMap<EventName, Vec<Trigger>>>,
}

/// A saga that an event starts.
#[derive(Clone)]
pub struct Trigger {
    pub component: Component,
    pub saga: SagaName,
}

impl Deployed {
    /// Puts services together, or says why they cannot run side by side.
    pub fn new(components: impl IntoIterator<Item = Component>) -> Result<Self, String> {
        let mut deployed = Self::default();
        for component in components {
            deployed.add(component)?;
        }
        Ok(deployed)
    }

    fn add(&mut self, component: Component) -> Result<(), String> {
        let manifest = component.manifest().clone();
        for aggregate in &manifest.aggregates {
            if let Some(other) = self.aggregates.insert(aggregate.name.clone(), component.clone()) {
                let (name, other) = (&aggregate.name, &other.manifest().service);
                return Err(format!(
                    "the aggregate {name} belongs to two services, {other} and {}",
                    manifest.service
                ));
            }
        }
        for saga in &manifest.sagas {
            let EventRef { aggregate, event } = saga.starts_on.clone();
            let trigger = Trigger { component: component.clone(), saga: saga.name.clone() };
            self.triggers.entry(aggregate).or_default().entry(event).or_default().push(trigger);
        }
        match self.services.insert(manifest.service.clone(), component) {
            None => Ok(()),
            Some(_) => Err(format!("the service {} is there twice", manifest.service)),
        }
    }

    /// These services in the place of those of the same names; says why they cannot run side by side.
    pub fn with(&self, new: &[Component]) -> Result<Self, String> {
        let stays =
            |old: &&Component| !new.iter().any(|new| new.manifest().service == old.manifest().service);
        Self::new(self.services().filter(stays).chain(new).cloned())
    }

    pub fn services(&self) -> impl Iterator<Item = &Component> {
        self.services.values()
    }

    pub fn service(&self, name: &str) -> Option<&Component> {
        self.services.get(name)
    }

    /// The service that an aggregate belongs to.
    pub fn owner(&self, aggregate: &str) -> Option<&Component> {
        self.aggregates.get(aggregate)
    }

    /// The sagas that an event starts, each with the id of its run. `index` is the event's place among its command's.
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

/// Which set runs.
#[derive(Default)]
pub struct Registry {
    current: ArcSwap<Deployed>,
    changes: watch::Sender<()>,
}

impl Registry {
    pub fn of(deployed: Deployed) -> Self {
        Self { current: ArcSwap::from_pointee(deployed), ..Self::default() }
    }

    pub fn current(&self) -> Arc<Deployed> {
        self.current.load_full()
    }

    /// Puts another set in the place of the running one.
    pub fn replace(&self, deployed: Deployed) {
        self.current.store(Arc::new(deployed));
        self.changes.send_replace(());
    }

    /// A signal whenever another set runs.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}
