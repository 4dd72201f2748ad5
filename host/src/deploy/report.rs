//! What the gates of a deployment found. It is the answer to whoever deploys, and a part of the deployment's event.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::deployed::{Gate, GateOutcome};
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
