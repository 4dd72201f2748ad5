//! The state of the host. The members of the cluster are [`crate::cluster::ObservedMember`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The reply of `GET /healthz`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Always `up`: the process answers.
    pub status: HealthStatus,
}

/// The state of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthStatus {
    /// The process answers.
    Up,
}

/// The reply of `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Readiness {
    /// `ready` with status 200, `not-ready` with status 503.
    pub status: ReadinessStatus,
    /// The reasons not to send traffic, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Defects that do not keep the host from taking traffic, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The ability of a host to take traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReadinessStatus {
    /// The host takes traffic.
    Ready,
    /// The host takes no traffic.
    NotReady,
}
