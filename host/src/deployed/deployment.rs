//! Deployments as they stand in the log: one stream for the whole host, so that several services go live with one append.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::gate::Gate;
use crate::clock::Time;
use crate::contract::{Grant, HttpOrigin};
use crate::log::{EventLog, MAX_PAGE, ReadError};
use crate::model::{Actor, Digest, Recorded, ServiceName, StreamId, Version, variant_of};

/// The stream that deployments are in.
const STREAM: &str = "deployment/services";

/// Releases of a service that are kept besides the one that runs: some megabytes.
const RELEASES: usize = 10;

/// One version of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub service: ServiceName,
    /// As its manifest says.
    pub version: String,
    pub digest: Digest,
    /// What it asks for and was granted with this deployment or one before it, beside what the configuration grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
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
    },
    /// A service runs no more. What it has in the log stays.
    Undeployed {
        release: Release,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
}

impl Happened {
    /// Whether a version is to be taken back that faults after it. What was there before has been watched.
    pub(crate) fn is_watched(&self) -> bool {
        matches!(self, Self::Deployed { .. })
    }
}

/// A release with what the gates said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Released {
    #[serde(flatten)]
    pub(crate) release: Release,
    pub(crate) gates: Vec<Gate>,
}

/// A service that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    pub release: Release,
    pub since: Time,
    pub by: Actor,
    pub note: Option<String>,
    /// What ran before it, oldest first.
    pub before: Vec<Release>,
}

/// What runs, by the log. *Invariant:* it follows from the stream alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deployments {
    /// Of the stream.
    pub(crate) version: Version,
    /// By service.
    pub(crate) running: BTreeMap<ServiceName, Running>,
    /// The services that ran once and were undeployed.
    pub(crate) undeployed: BTreeSet<ServiceName>,
}

/// What happened to one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Of the stream of deployments. Services that were deployed together have the same.
    pub version: Version,
    pub time: Time,
    pub actor: Actor,
    pub act: ActName,
    pub service: ServiceName,
    /// What ran from then on; none after `undeployed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// What ran until then, if that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Digest>,
    /// Why it was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActName {
    Deployed,
    RolledBack,
    Undeployed,
}

impl ActName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployed => "deployed",
            Self::RolledBack => "rolled-back",
            Self::Undeployed => "undeployed",
        }
    }
}

/// Why deployments cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("version {version} of the stream of deployments cannot be read: {why}")]
    Format { version: Version, why: String },
}

pub(crate) fn stream() -> StreamId {
    StreamId::of_host(STREAM)
}

/// Up to a page of the stream behind a version.
pub(crate) async fn history(
    log: &dyn EventLog,
    after: Version,
    limit: usize,
) -> Result<Vec<(Recorded, Happened)>, HistoryError> {
    let events = log.read(&stream(), after, limit).await?;
    let read = events.into_iter().map(|event| match variant_of(event.name.as_str(), &event.payload) {
        Ok(happened) => Ok((event, happened)),
        Err(error) => Err(HistoryError::Format { version: event.version, why: error.to_string() }),
    });
    read.collect()
}

impl Release {
    /// Its grants, as far as this host knows them.
    pub(crate) fn granted(&self) -> impl Iterator<Item = Grant> + '_ {
        self.grants.iter().filter_map(|grant| grant.parse().ok())
    }
}

/// Up to a page of the stream behind a version: what began to run with each event.
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
    /// What the log says.
    pub(crate) async fn load(log: &dyn EventLog) -> Result<Self, HistoryError> {
        let mut deployments = Self::default();
        deployments.read_on(log).await?;
        Ok(deployments)
    }

    /// Moves on to where the log is. Returns whether what happened last is watched, if anything happened.
    pub(crate) async fn read_on(&mut self, log: &dyn EventLog) -> Result<Option<bool>, HistoryError> {
        let mut watched = None;
        loop {
            let page = history(log, self.version, MAX_PAGE).await?;
            if page.is_empty() {
                return Ok(watched);
            }
            for (event, happened) in page {
                watched = Some(happened.is_watched());
                self.take_in(event.version, Time(event.meta.time_ms), &event.meta.actor, happened);
            }
        }
    }

    /// Moves on by one event.
    pub(crate) fn take_in(&mut self, version: Version, since: Time, by: &Actor, happened: Happened) {
        self.version = version;
        match happened {
            Happened::Deployed { services, note } => {
                for Released { release, .. } in services {
                    self.run(release, since, by, note.clone());
                }
            }
            Happened::RolledBack { to, note, reason, .. } => {
                self.run(to, since, by, note.or(Some(reason)));
            }
            Happened::Undeployed { release, .. } => {
                self.running.remove(&release.service);
                self.undeployed.insert(release.service);
            }
        }
    }

    fn run(&mut self, release: Release, since: Time, by: &Actor, note: Option<String>) {
        let mut before = self.running.remove(&release.service).map_or_else(Vec::new, |running| {
            let Running { release, mut before, .. } = running;
            before.push(release);
            before
        });
        // One that runs again has only those behind it that were behind it then.
        if let Some(at) = before.iter().position(|earlier| earlier.digest == release.digest) {
            before.truncate(at);
        }
        let service = release.service.clone();
        self.undeployed.remove(&service);
        self.running.insert(service, Running { release, since, by: by.clone(), note, before });
    }

    /// Whether this release runs, with the same grants.
    pub(crate) fn runs(&self, release: &Release) -> bool {
        self.running.get(&release.service).is_some_and(|running| running.release == *release)
    }

    /// The origins that services may call by what was granted with the deployments that run.
    pub(crate) fn origins(&self) -> impl Iterator<Item = (ServiceName, HttpOrigin)> {
        self.running.iter().flat_map(|(service, running)| {
            running.release.granted().filter_map(|grant| match grant {
                Grant::Http(origin) => Some((service.clone(), origin)),
                Grant::Service(_) | Grant::Subject(_) => None,
            })
        })
    }

    /// All components that run or may be rolled back to.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.running.values().flat_map(|running| {
            let last = running.before.iter().rev().take(RELEASES).map(|release| release.digest);
            last.chain([running.release.digest])
        })
    }
}

impl HistoryEntry {
    /// One entry a service of an event.
    pub(crate) fn of(event: &Recorded, happened: Happened) -> Vec<Self> {
        let entry = |act, service: &ServiceName| Self {
            version: event.version,
            time: Time(event.meta.time_ms),
            actor: event.meta.actor.clone(),
            act,
            service: service.clone(),
            release: None,
            replaced: None,
            reason: None,
            note: None,
            gates: Vec::new(),
        };
        match happened {
            Happened::Deployed { services, note } => {
                let deployed = |Released { release, gates }| Self {
                    note: note.clone(),
                    gates,
                    ..Self { release: Some(release.clone()), ..entry(ActName::Deployed, &release.service) }
                };
                services.into_iter().map(deployed).collect()
            }
            Happened::RolledBack { to, from, reason, note } => {
                let rolled_back = entry(ActName::RolledBack, &to.service);
                vec![Self {
                    release: Some(to),
                    replaced: Some(from),
                    reason: Some(reason),
                    note,
                    ..rolled_back
                }]
            }
            Happened::Undeployed { release, note } => {
                let undeployed = entry(ActName::Undeployed, &release.service);
                vec![Self { replaced: Some(release.digest), note, ..undeployed }]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DEPLOYMENT;

    fn release(version: &str) -> Release {
        let digest = Digest::of(version.as_bytes());
        Release { service: "order".into(), version: version.to_owned(), digest, grants: Vec::new() }
    }

    fn deployed(version: &str) -> Happened {
        Happened::Deployed {
            services: vec![Released { release: release(version), gates: vec![] }],
            note: None,
        }
    }

    fn rolled_back(to: &str, from: &str) -> Happened {
        let from = Digest::of(from.as_bytes());
        Happened::RolledBack { to: release(to), from, reason: "faults".to_owned(), note: None }
    }

    #[test]
    fn the_stream_has_a_name_that_can_be_read() {
        let read = StreamId::parse(STREAM).unwrap();
        assert_eq!((&read, read.aggregate()), (&stream(), DEPLOYMENT));
    }

    #[test]
    fn what_runs_and_what_ran_before_follow_from_the_events() {
        let undeployed = Happened::Undeployed { release: release("1"), note: None };
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
                deployments.take_in(version, Time(7), &"ada".into(), happened.clone());
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
