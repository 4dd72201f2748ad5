//! The running set of services.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::triggers::DeploymentHistory;
use crate::model::{AggregateName, ServiceName, StreamId};
use crate::runtime::Component;

/// The services that run together. A set never changes; another one replaces it.
#[derive(Clone, Default)]
pub struct Deployed {
    /// The services, by name.
    services: BTreeMap<ServiceName, Component>,
    /// The service of each aggregate, by the aggregate's name.
    aggregates: HashMap<AggregateName, Component>,
    /// The newer components that some streams stay with, see [`Kept`].
    ///
    /// [`Kept`]: super::Kept
    kept: HashMap<StreamId, Component>,
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
        match self.services.insert(manifest.service.clone(), component) {
            None => Ok(()),
            Some(_) => Err(ServiceConflict::Service(manifest.service.clone())),
        }
    }

    /// Returns the same set, in which streams stay with a newer component of their service.
    pub fn keeping(&self, newer: &Component, streams: &[StreamId]) -> Self {
        let mut deployed = self.clone();
        deployed.kept.extend(streams.iter().map(|stream| (stream.clone(), newer.clone())));
        deployed
    }

    /// Returns the set without a service. Fails if the others cannot run without it.
    pub fn without(&self, service: &str) -> Result<Self, ServiceConflict> {
        let stays = |other: &&Component| other.manifest().service != *service;
        Ok(Self::new(self.services().filter(stays).cloned())?.keeping_those_of(self))
    }

    /// Returns the same set with the kept streams of another one, without those of services that differ.
    fn keeping_those_of(mut self, other: &Self) -> Self {
        for (stream, newer) in &other.kept {
            let service = newer.manifest().service.as_str();
            let [here, there] = [&self, other].map(|deployed| deployed.service(service));
            if here.is_some() && here.map(Component::digest) == there.map(Component::digest) {
                self.kept.insert(stream.clone(), newer.clone());
            }
        }
        self
    }

    /// Returns the set in which these services replace those of the same names. Fails if they cannot run side
    /// by side.
    pub fn with(&self, new: &[Component]) -> Result<Self, ServiceConflict> {
        let stays =
            |old: &&Component| !new.iter().any(|new| new.manifest().service == old.manifest().service);
        Ok(Self::new(self.services().filter(stays).chain(new).cloned())?.keeping_those_of(self))
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

    /// Returns the component that folds a stream and decides its commands.
    pub fn owner_of(&self, stream: &StreamId) -> Option<&Component> {
        self.kept.get(stream).or_else(|| self.owner(stream.aggregate()))
    }
}

/// The set of services that runs, and the deployments in the log.
#[derive(Default)]
pub struct Registry {
    current: ArcSwap<Deployed>,
    changes: watch::Sender<()>,
    history: DeploymentHistory,
}

impl Registry {
    /// Returns a registry in which a set runs. `history`: the deployments in the log.
    pub fn of(deployed: Deployed, history: DeploymentHistory) -> Self {
        Self { current: ArcSwap::from_pointee(deployed), history, ..Self::default() }
    }

    /// Returns the deployments in the log.
    pub fn history(&self) -> &DeploymentHistory {
        &self.history
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
