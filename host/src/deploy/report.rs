//! What the gates of a deployment found. It is the answer to whoever deploys, and a part of the deployment's event.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Digest, ServiceName};

/// What became of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether it was only to be looked at.
    pub dry_run: bool,
    /// Whether the services run now. If not, a gate has refused one of them, or it was a dry run.
    pub live: bool,
    pub services: Vec<ServiceReport>,
    /// Those about all services together.
    pub gates: Vec<Gate>,
    /// Every host that shares the log, this one included; empty if the log is this host's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostReport>,
}

/// Whether a host follows a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// Whether it runs what was deployed.
    pub runs: bool,
    /// What is wrong with it, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// One service of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    pub service: ServiceName,
    pub version: String,
    pub digest: Digest,
    /// What runs now, or ran until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Digest>,
    pub gates: Vec<Gate>,
}

/// What one gate found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    pub gate: GateName,
    pub outcome: GateOutcome,
    pub took_ms: u64,
    /// One sentence: what was found and, if it refuses, what to do.
    pub says: String,
    /// Single things that were found: what would break, streams, sagas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// The gates, in the order in which they are passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateName {
    /// It is a component that imports and exports what the contract says.
    Component,
    /// What it says about itself is sound.
    Manifest,
    /// Somebody who is trusted has signed it.
    Signature,
    /// All services that would run go together.
    SideBySide,
    /// It takes nothing away that the running version has.
    Compatible,
    /// It asks for nothing that is not granted.
    Permissions,
    /// SQLite takes the tables of its read model.
    ReadModel,
    /// It folds what is in the log.
    History,
    /// The journals of its open sagas replay on it.
    Sagas,
    /// It answers calls.
    WarmUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateOutcome {
    Passed,
    Refused,
    /// There was nothing to look at, or the operator has it left out.
    Skipped,
}

impl GateName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Manifest => "manifest",
            Self::Signature => "signature",
            Self::SideBySide => "side-by-side",
            Self::Compatible => "compatible",
            Self::Permissions => "permissions",
            Self::ReadModel => "read-model",
            Self::History => "history",
            Self::Sagas => "sagas",
            Self::WarmUp => "warm-up",
        }
    }
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Report {
    /// The first gate that refuses, with the service that it refuses; none if all let it through.
    pub fn refusal(&self) -> Option<(Option<&ServiceName>, &Gate)> {
        let of_services = self
            .services
            .iter()
            .flat_map(|service| service.gates.iter().map(move |gate| (Some(&service.service), gate)));
        let of_all = self.gates.iter().map(|gate| (None, gate));
        of_services.chain(of_all).find(|(_, gate)| gate.outcome == GateOutcome::Refused)
    }

    /// Which gate refuses what and why, as a part of a sentence; none if all let it through.
    pub fn why_refused(&self) -> Option<String> {
        let (service, gate) = self.refusal()?;
        let what = service.map_or("the services together", |service| service.as_str());
        Some(format!("the gate {} refuses {what}: {}", gate.gate, gate.says))
    }
}
