//! Deployments as events in the log: one stream for the whole host, so that several services go live with one
//! append.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{HistoryError, RecordError};
use super::gate_result::GateResult;
use super::history_entry::HistoryEntry;
use super::trial::{Kept, Return, Trial};
use super::triggers::{DeploymentHistory, ReleasedSaga};
use crate::clock::Time;
use crate::contract::{Grant, HttpOrigin};
use crate::log::{Append, Appended, EventLog, MAX_PAGE};
use crate::model::{
    Actor, Caller, Digest, Position, Recorded, ServiceName, StreamId, Version, event_of, variant_of,
};
use crate::runtime::{Component, Grants};

/// The stream of the deployments.
const STREAM: &str = "deployment/services";

/// The number of earlier releases of a service that are kept on disk: some megabytes.
const RELEASES: usize = 10;

/// One version of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The name of the service.
    pub service: ServiceName,
    /// The version that its manifest names.
    pub version: String,
    /// The digest of its component.
    pub digest: Digest,
    /// The grants of this deployment and of those before it that the component requests. The configuration's
    /// are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// The sagas of the component; `None` if a version of Kontor that did not record them has written the
    /// release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sagas: Option<Vec<ReleasedSaga>>,
    /// The earlier components whose states this one takes on: the gate `history` has folded all streams with
    /// both to the same states. The newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folds_like: Vec<Digest>,
    /// The DSSE envelope with the signed statement that the component may be deployed, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<String>,
}

/// One event of the stream. The stored event's name is the variant's, its payload the variant's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Happened {
    /// These services run from now on, all of them.
    Deployed {
        services: Vec<Released>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// An earlier release of a service runs again.
    RolledBack {
        to: Release,
        from: Digest,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// The streams that stay with the component that ran until then.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kept: Vec<StreamId>,
    },
    /// A service no longer runs. Its events stay in the log.
    Undeployed {
        release: Release,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
}

impl Happened {
    /// Reads an event of the stream.
    pub(crate) fn of(event: &Recorded) -> Result<Self, HistoryError> {
        let happened = variant_of(event.name.as_str(), &event.payload);
        happened.map_err(|source| HistoryError::Format { version: event.version, source })
    }

    /// Returns whether a version that faults after this event is rolled back. An earlier release has been
    /// watched before.
    pub(crate) fn is_watched(&self) -> bool {
        matches!(self, Self::Deployed { .. })
    }
}

/// A release with the results of its gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Released {
    #[serde(flatten)]
    pub(crate) release: Release,
    pub(crate) gates: Vec<GateResult>,
}

/// A service that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The release that runs.
    pub release: Release,
    /// The time of its deployment.
    pub since: Time,
    /// The actor of its deployment.
    pub by: Actor,
    /// The note of its deployment.
    pub note: Option<String>,
    /// The releases that ran before it, oldest first.
    pub before: Vec<Release>,
    /// The streams that stay with a newer component.
    pub kept: Option<Kept>,
    /// The trial of a release that has replaced another one. None after a rollback: an earlier release has
    /// had its trial.
    pub trial: Option<Trial>,
    /// The rollback after which the release runs.
    pub returned: Option<Return>,
}

/// The services that run, by the log. *Invariant:* they follow from the stream alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deployments {
    /// The version of the stream.
    pub(crate) version: Version,
    /// By service.
    pub(crate) running: BTreeMap<ServiceName, Running>,
    /// The services that were undeployed and do not run again, with the last release of each, on which its
    /// sagas end.
    pub(crate) undeployed: BTreeMap<ServiceName, Release>,
}

/// Returns the stream of deployments.
pub(crate) fn stream() -> StreamId {
    StreamId::of_host(STREAM)
}

/// Reads up to `limit` events of the stream after a version.
pub(crate) async fn history(
    log: &dyn EventLog,
    after: Version,
    limit: usize,
) -> Result<Vec<(Recorded, Happened)>, HistoryError> {
    let events = log.read(&stream(), after, limit).await?;
    events.into_iter().map(|event| Ok((event.clone(), Happened::of(&event)?))).collect()
}

impl Release {
    /// Returns the release of a component. `grants`: those of its requests that are granted.
    pub(crate) fn of(component: &Component, grants: Vec<String>) -> Self {
        let manifest = component.manifest();
        Self {
            service: manifest.service.clone(),
            version: manifest.version.clone(),
            digest: component.digest(),
            grants,
            sagas: Some(ReleasedSaga::of(manifest)),
            folds_like: Vec::new(),
            envelope: None,
        }
    }

    /// Returns a release of the service `order`.
    #[cfg(test)]
    pub(crate) fn example(version: &str) -> Self {
        let digest = Digest::of(version.as_bytes());
        let (service, version) = ("order".into(), version.to_owned());
        Self {
            service,
            version,
            digest,
            grants: Vec::new(),
            sagas: None,
            folds_like: Vec::new(),
            envelope: None,
        }
    }

    /// Returns the grants that this host can read. A newer host may have written others.
    pub(crate) fn granted(&self) -> impl Iterator<Item = Grant> + '_ {
        self.grants.iter().filter_map(|grant| grant.parse().ok())
    }
}

/// Reads up to `limit` events of the stream after a version: the releases that run from each event on.
pub(crate) async fn releases(
    log: &dyn EventLog,
    after: Version,
    limit: usize,
) -> Result<Vec<(Version, Vec<Release>)>, HistoryError> {
    let of = |(event, happened): (Recorded, Happened)| {
        let entries = HistoryEntry::of(&event, happened).into_iter();
        (event.version, entries.filter_map(|entry| entry.release).collect())
    };
    Ok(history(log, after, limit).await?.into_iter().map(of).collect())
}

impl Deployments {
    /// Reads all deployments in the log, and their history.
    pub(crate) async fn load(log: &dyn EventLog) -> Result<(Self, DeploymentHistory), HistoryError> {
        let (mut deployments, history) = (Self::default(), DeploymentHistory::default());
        deployments.read_on(log, Position::MAX, Some(&history)).await?;
        Ok((deployments, history))
    }

    /// Applies the events up to a position that are new in the log, to `known` too. Returns whether the last
    /// one is watched, or none if there are none.
    pub(crate) async fn read_on(
        &mut self,
        log: &dyn EventLog,
        until: Position,
        known: Option<&DeploymentHistory>,
    ) -> Result<Option<bool>, HistoryError> {
        let mut watched = None;
        loop {
            let page = history(log, self.version, MAX_PAGE).await?;
            let more = page.last().is_some_and(|(last, _)| last.position < until);
            for (event, happened) in page.into_iter().take_while(|(event, _)| event.position <= until) {
                watched = Some(happened.is_watched());
                self.apply(&event, happened);
                if let Some(known) = known {
                    known.add(event.position, self);
                }
            }
            if !more {
                return Ok(watched);
            }
        }
    }

    /// Appends an event, and applies it. Returns its position.
    pub(crate) async fn record(
        &mut self,
        log: &dyn EventLog,
        time_ms: u64,
        happened: Happened,
        caller: Caller,
    ) -> Result<Position, RecordError> {
        let event = event_of(&happened).map_err(RecordError::Encode)?;
        let expected = self.version;
        let append = Append::of_host(stream(), expected, event, time_ms, &caller);
        let Appended { position } = log.append(vec![append]).await?;
        self.happen((expected.next(), position), Time(time_ms), &caller.actor(), happened);
        Ok(position)
    }

    /// Applies one event.
    pub(crate) fn apply(&mut self, event: &Recorded, happened: Happened) {
        let place = (event.version, event.position);
        self.happen(place, Time(event.meta.time_ms), &event.meta.actor, happened);
    }

    pub(super) fn happen(
        &mut self,
        (version, position): (Version, Position),
        since: Time,
        by: &Actor,
        happened: Happened,
    ) {
        self.version = version;
        match happened {
            Happened::Deployed { services, note } => {
                for Released { release, .. } in services {
                    let replaced = self.running.remove(&release.service);
                    let next = Running::new(release, since, by.clone(), note.clone());
                    self.run(next.put_on_trial(replaced.as_ref(), position), replaced);
                }
            }
            Happened::RolledBack { to, from, note, reason, kept } => {
                let replaced = self.running.remove(&to.service);
                let next = Running::new(to, since, by.clone(), note.or(Some(reason)));
                self.run(next.returned_from(from, kept, replaced.as_ref(), position), replaced);
            }
            Happened::Undeployed { release, .. } => {
                self.running.remove(&release.service);
                self.undeployed.insert(release.service.clone(), release);
            }
        }
    }

    /// Runs a release in the place of another one, and fills in those before it.
    fn run(&mut self, next: Running, replaced: Option<Running>) {
        let release = &next.release;
        let mut before = replaced.map_or_else(Vec::new, |Running { release, mut before, .. }| {
            before.push(release);
            before
        });
        // A release that runs again keeps only the releases that came before it the first time.
        if let Some(at) = before.iter().position(|earlier| earlier.digest == release.digest) {
            before.truncate(at);
        }
        let service = release.service.clone();
        self.undeployed.remove(&service);
        self.running.insert(service, Running { before, ..next });
    }

    /// Returns the components whose states a component may take on instead of the running one. `alike`: the
    /// two have folded all streams to the same states.
    pub(crate) fn folds_like(&self, component: &Component, alike: bool) -> Vec<Digest> {
        let Some(Running { release, .. }) = self.running.get(&component.manifest().service) else {
            return Vec::new();
        };
        let earlier = release.folds_like.iter().copied();
        match (release.digest == component.digest(), alike) {
            (true, _) => earlier.collect(),
            (false, true) => [release.digest].into_iter().chain(earlier).take(RELEASES).collect(),
            (false, false) => Vec::new(),
        }
    }

    /// Returns the envelope of a component that runs already.
    pub(crate) fn envelope(&self, component: &Component) -> Option<String> {
        let running = self.running.get(&component.manifest().service)?;
        let same = running.release.digest == component.digest();
        running.release.envelope.clone().filter(|_| same)
    }

    /// Returns whether this release runs, with the same grants.
    pub(crate) fn runs(&self, release: &Release) -> bool {
        self.running.get(&release.service).is_some_and(|running| running.release == *release)
    }

    /// Returns the origins that services may call, by the grants of their deployments.
    pub(crate) fn origins(&self) -> impl Iterator<Item = (ServiceName, HttpOrigin)> {
        self.running.iter().flat_map(|(service, running)| {
            running.release.granted().filter_map(|grant| match grant {
                Grant::Http(origin) => Some((service.clone(), origin)),
                Grant::Command(_) | Grant::Event(_) | Grant::Service(_) | Grant::Subject(_) => None,
            })
        })
    }

    /// Returns the grants of the deployments of each service. Those of earlier releases are among them,
    /// because sagas end on the component that they started on.
    pub(crate) fn grants(&self) -> Grants {
        let running = self.running.values().flat_map(|running| {
            let replaced = running.trial.as_ref().map(|trial| &trial.replaced);
            running.before.iter().chain(replaced).chain([&running.release])
        });
        let mut grants = Grants::new();
        for release in running.chain(self.undeployed.values()) {
            grants.entry(release.service.clone()).or_default().extend(release.granted());
        }
        grants
    }

    /// Returns all components that run or may be rolled back to.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.running.values().flat_map(|running| {
            let last = running.before.iter().rev().take(RELEASES).map(|release| release.digest);
            let newer = running.returned.as_ref().map(|returned| returned.from);
            let replaced = running.trial.as_ref().map(|trial| trial.replaced.digest);
            last.chain([running.release.digest]).chain(newer).chain(replaced)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::DEPLOYMENT;

    pub(in crate::deployed) fn deployed(version: &str) -> Happened {
        Happened::Deployed {
            services: vec![Released { release: Release::example(version), gates: vec![] }],
            note: None,
        }
    }

    fn rolled_back(to: &str, from: &str) -> Happened {
        let from = Digest::of(from.as_bytes());
        Happened::RolledBack {
            to: Release::example(to),
            from,
            reason: "faults".to_owned(),
            note: None,
            kept: Vec::new(),
        }
    }

    #[test]
    fn the_name_of_the_stream_can_be_parsed() {
        let read = StreamId::parse(STREAM).unwrap();
        assert_eq!((&read, read.aggregate()), (&stream(), DEPLOYMENT));
    }

    #[test]
    fn the_running_release_and_those_before_it_follow_from_the_events() {
        let undeployed = Happened::Undeployed { release: Release::example("1"), note: None };
        type Expected<'a> = Option<(&'a str, &'a [&'a str])>;
        let table: [(&[Happened], Expected<'_>); 6] = [
            (&[], None),
            (&[deployed("1")], Some(("1", &[]))),
            (&[deployed("1"), deployed("2"), deployed("3")], Some(("3", &["1", "2"]))),
            (&[deployed("1"), deployed("2"), deployed("3"), rolled_back("2", "3")], Some(("2", &["1"]))),
            (&[deployed("1"), deployed("2"), deployed("1")], Some(("1", &[]))),
            (&[deployed("1"), undeployed], None),
        ];
        for (events, expected) in table {
            let mut deployments = Deployments::default();
            for (version, happened) in (1..).map(Version::new).zip(events) {
                deployments.happen((version, Position::START), Time(7), &"ada".into(), happened.clone());
            }
            let running = deployments.running.get("order");
            let versions = running.map(|running| {
                let before: Vec<_> = running.before.iter().map(|release| &*release.version).collect();
                (&*running.release.version, before)
            });
            assert_eq!(versions, expected.map(|(version, before)| (version, before.to_vec())));
        }
    }
}
