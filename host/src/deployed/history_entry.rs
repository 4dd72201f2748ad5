//! The history of deployments, as operators read it: an entry for each service of each event.

use serde::{Deserialize, Serialize};

use super::deployment::{Happened, Release, Released};
use super::gate_result::GateResult;
use crate::clock::Time;
use crate::model::{Actor, Digest, Recorded, ServiceName, StreamId, Version};

/// One event in the history of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// The version of the stream of deployments. Services that were deployed together have the same.
    pub version: Version,
    /// The time of the event.
    pub time: Time,
    /// The operator, or the part of the host, that caused the event.
    pub actor: Actor,
    /// The kind of the event.
    pub act: ActName,
    /// The name of the service.
    pub service: ServiceName,
    /// The release that runs after the event; none after `undeployed`.
    pub release: Option<Release>,
    /// The component that ran until the event, if the event names it.
    pub replaced: Option<Digest>,
    /// The reason for a rollback.
    pub reason: Option<String>,
    /// The streams that stay with the component that ran until a rollback.
    pub kept: Vec<StreamId>,
    /// The operator's note.
    pub note: Option<String>,
    /// The results of the gates of a deployment.
    pub gates: Vec<GateResult>,
}

/// The kind of an event in the history of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display, schemars::JsonSchema)]
#[schemars(rename = "DeploymentActName")]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ActName {
    /// A new release runs.
    Deployed,
    /// An earlier release runs again.
    RolledBack,
    /// The service no longer runs.
    Undeployed,
}

impl HistoryEntry {
    /// Returns an entry for each service of an event.
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
            kept: Vec::new(),
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
            Happened::RolledBack { to, from, reason, note, kept } => {
                let rolled_back = entry(ActName::RolledBack, &to.service);
                vec![Self {
                    release: Some(to),
                    replaced: Some(from),
                    reason: Some(reason),
                    kept,
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
