//! The report of a deployment, which is the response to the operator.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::deployed::{GateOutcome, GateResult};
use crate::model::{Digest, ServiceName};

/// The result of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "DeploymentReport")]
pub struct Report {
    /// True for a dry run.
    pub dry_run: bool,
    /// True if the services run now. If not, a gate refused one of them, or it was a dry run.
    pub live: bool,
    /// A report for each service of the deployment.
    pub services: Vec<ServiceReport>,
    /// The results of the gates for all services together.
    pub gates: Vec<GateResult>,
    /// Every host that shares the log, including this one. Empty if this host runs alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostReport>,
}

/// The state of a host after a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostReport {
    /// The name of the host.
    pub name: Arc<str>,
    /// The address at which the host takes HTTP requests.
    pub address: SocketAddr,
    /// True if the host runs the deployment.
    pub runs: bool,
    /// The host's warnings, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The report on one service of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ServiceReport {
    /// The name of the service.
    pub service: ServiceName,
    /// The version that its manifest names.
    pub version: String,
    /// The digest of the component.
    pub digest: Digest,
    /// The component that the new one replaces, if the service runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Digest>,
    /// The results of the gates.
    pub gates: Vec<GateResult>,
}

impl Report {
    /// Returns the first gate that refuses, with the service that it refuses, or none if all gates let it
    /// through.
    pub fn refusal(&self) -> Option<(Option<&ServiceName>, &GateResult)> {
        let of_services = self
            .services
            .iter()
            .flat_map(|service| service.gates.iter().map(move |gate| (Some(&service.service), gate)));
        let of_all = self.gates.iter().map(|gate| (None, gate));
        of_services.chain(of_all).find(|(_, gate)| gate.outcome == GateOutcome::Refused)
    }

    /// Returns the refusal as a part of a sentence, or none if all gates let it through.
    pub fn why_refused(&self) -> Option<String> {
        let (service, gate) = self.refusal()?;
        let what = service.map_or("the services together", |service| service.as_str());
        Some(format!("the gate {} refuses {what}: {}", gate.gate, gate.says))
    }
}
