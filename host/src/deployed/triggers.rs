//! The sagas that events start, by the deployments that are before them in the log.
//!
//! *Invariant:* the sagas of an event follow from the log alone: they are the same on every host and at every
//! time, whatever is deployed when somebody looks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};

use super::deployment::{Deployments, Happened, Release, Released};
use super::error::{HistoryError, RecordError};
use crate::contract::{EventRef, Manifest};
use crate::log::EventLog;
use crate::model::{
    AggregateName, Caller, DEPLOYMENT, Digest, EventName, Meta, Position, Recorded, SagaId, SagaName,
    ServiceName, StreamId, event_id,
};
use crate::runtime::{Component, Grants};

/// A saga of a release, and the event that starts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleasedSaga {
    /// The name of the saga.
    pub saga: SagaName,
    /// The event that starts it.
    pub starts_on: EventRef,
    /// True if the event is of an aggregate of the same service.
    pub own: bool,
}

impl ReleasedSaga {
    /// Returns the sagas of a manifest.
    pub(super) fn of(manifest: &Manifest) -> Vec<Self> {
        let saga = |saga: &crate::contract::Saga| Self {
            saga: saga.name.clone(),
            starts_on: saga.starts_on.clone(),
            own: manifest.aggregate(saga.starts_on.aggregate.as_str()).is_some(),
        };
        manifest.sagas.iter().map(saga).collect()
    }
}

/// A saga that an event starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// The service of the saga.
    pub service: ServiceName,
    /// The component that runs the saga.
    pub digest: Digest,
    /// The name of the saga.
    pub saga: SagaName,
    /// True if the event is of the same service.
    pub own: bool,
}

/// The sagas that events start while a set of services runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Triggers(HashMap<AggregateName, HashMap<EventName, Vec<Trigger>>>);

impl Triggers {
    /// Returns the sagas of the services that run. They are ordered by service and then as in the manifest.
    pub(crate) fn of(deployments: &Deployments) -> Self {
        let mut triggers = Self::default();
        for release in deployments.running.values().map(|running| &running.release) {
            for ReleasedSaga { saga, starts_on, own } in release.sagas.iter().flatten() {
                let (service, digest) = (release.service.clone(), release.digest);
                let trigger = Trigger { service, digest, saga: saga.clone(), own: *own };
                let events = triggers.0.entry(starts_on.aggregate.clone()).or_default();
                events.entry(starts_on.event.clone()).or_default().push(trigger);
            }
        }
        triggers
    }

    /// Returns the sagas that an event starts, each with the id of its run. `index` is the event's place
    /// among those of its command.
    pub fn started_by(
        &self,
        stream: &StreamId,
        event: &EventName,
        index: u32,
        meta: &Meta,
    ) -> impl Iterator<Item = (SagaId, &Trigger)> {
        let triggers = self.0.get(stream.aggregate()).and_then(|events| events.get(event));
        triggers.into_iter().flatten().map(move |trigger| {
            let id = event_id(&meta.command_id, index);
            (SagaId::started_by(&id, &trigger.service, &trigger.saga, meta.time_ms), trigger)
        })
    }
}

/// The triggers at one position of the log.
#[derive(Default)]
pub(crate) struct FollowedTriggers {
    deployments: Deployments,
    triggers: Triggers,
}

impl FollowedTriggers {
    /// Returns the triggers after the event at a position.
    pub(crate) async fn at(log: &dyn EventLog, position: Position) -> Result<Self, HistoryError> {
        let mut deployments = Deployments::default();
        deployments.read_on(log, position, None).await?;
        Ok(Self { triggers: Triggers::of(&deployments), deployments })
    }

    /// Applies the next event of the log. Only deployments change the triggers. Returns the grants of the
    /// deployments after one.
    pub(crate) fn apply(&mut self, event: &Recorded) -> Result<Option<Grants>, HistoryError> {
        if event.stream.aggregate() != DEPLOYMENT {
            return Ok(None);
        }
        self.deployments.apply(event, Happened::of(event)?);
        self.triggers = Triggers::of(&self.deployments);
        Ok(Some(self.deployments.grants()))
    }

    /// Returns the triggers.
    pub(crate) fn triggers(&self) -> &Triggers {
        &self.triggers
    }
}

/// The deployments in the log, as far as commands and replies depend on them.
#[derive(Default)]
pub struct DeploymentHistory(RwLock<Known>);

#[derive(Default)]
struct Known {
    /// The triggers of each deployment, from its position on.
    triggers: BTreeMap<Position, Arc<Triggers>>,
    /// The components that each component folds like, see [`Release::folds_like`].
    folds_like: HashMap<Digest, Vec<Digest>>,
}

impl DeploymentHistory {
    /// Records that these components run, on a log without other deployments, as in tests. Appends nothing if
    /// the log says so already.
    pub async fn record(&self, log: &dyn EventLog, components: &[Component]) -> Result<(), RecordError> {
        let mut deployments = Deployments::default();
        deployments.read_on(log, Position::MAX, Some(self)).await?;
        let releases = components.iter().map(|component| Release::of(component, Vec::new()));
        let new = releases.filter(|release| !deployments.runs(release));
        let services: Vec<_> = new.map(|release| Released { release, gates: Vec::new() }).collect();
        if !services.is_empty() {
            let happened = Happened::Deployed { services, note: None };
            let position = deployments.record(log, 0, happened, Caller::named("kontor")).await?;
            self.add(position, &deployments);
        }
        Ok(())
    }

    /// Adds the deployments after an event of their stream.
    pub(crate) fn add(&self, from: Position, deployments: &Deployments) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let releases = deployments.running.values().map(|running| &running.release);
        known.folds_like.extend(releases.map(|release| (release.digest, release.folds_like.clone())));
        known.triggers.insert(from, Arc::new(Triggers::of(deployments)));
    }

    /// Returns the components whose states a component may take on: itself, and those that it folds like.
    pub fn folds_like(&self, component: Digest) -> Vec<Digest> {
        let known = self.known();
        let alike = known.folds_like.get(&component).into_iter().flatten().copied();
        [component].into_iter().chain(alike).collect()
    }

    /// Returns the sagas that an event at this position starts.
    pub fn triggers_at(&self, position: Position) -> Arc<Triggers> {
        let known = self.known();
        known.triggers.range(..position).next_back().map(|(_, triggers)| triggers.clone()).unwrap_or_default()
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployed::Running;
    use crate::model::CommandId;

    /// Returns the deployments in which a service runs with these sagas on `order-created`.
    fn running(service: &str, sagas: &[&str]) -> Deployments {
        let starts_on = EventRef { aggregate: "order".into(), event: "order-created".into() };
        let saga = |name: &&str| ReleasedSaga {
            saga: (*name).into(),
            starts_on: starts_on.clone(),
            own: service == "order",
        };
        let release = Release {
            service: service.into(),
            sagas: Some(sagas.iter().map(saga).collect()),
            ..Release::example(service)
        };
        let (since, by) = (crate::clock::Time(0), "ada".into());
        let running = Running {
            release,
            since,
            by,
            note: None,
            before: Vec::new(),
            kept: None,
            trial: None,
            returned: None,
        };
        Deployments { running: [(service.into(), running)].into(), ..Deployments::default() }
    }

    #[test]
    fn an_event_starts_the_sagas_of_the_deployments_before_it() {
        let history = DeploymentHistory::default();
        history.add(Position::new(10), &running("order", &["place-order", "thank"]));
        history.add(Position::new(20), &running("audit", &["log-order"]));
        history.add(Position::new(30), &Deployments::default());
        let meta = Meta { command_id: CommandId::from_key("cart-7"), ..Meta::default() };
        let (stream, event) = (StreamId::parse("order/o1").unwrap(), "order-created".into());
        let started = |position| {
            let triggers = history.triggers_at(Position::new(position));
            let started = triggers.started_by(&stream, &event, 0, &meta);
            started.map(|(_, trigger)| (trigger.saga.to_string(), trigger.own)).collect::<Vec<_>>()
        };
        let both = vec![("place-order".to_owned(), true), ("thank".to_owned(), true)];
        let audit = vec![("log-order".to_owned(), false)];
        for (position, expected) in
            [(1, vec![]), (10, vec![]), (11, both.clone()), (20, both), (21, audit), (31, vec![])]
        {
            assert_eq!(started(position), expected, "at {position}");
        }
    }
}
