//! The results of a deployment's gates, as the deployment's event stores them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Digest;

/// The result of one gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GateResult {
    /// The gate.
    pub gate: GateName,
    /// The outcome: passed, refused or skipped.
    pub outcome: GateOutcome,
    /// The time that the check took.
    pub took_ms: u64,
    /// One sentence: the finding and, if the gate refuses, what to do about it.
    pub says: String,
    /// Details of the finding, such as breaking changes, streams or sagas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// The place of a deployment in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct GateStep {
    /// The component that is examined.
    pub digest: Digest,
    /// The gate that it is at.
    pub gate: GateName,
    /// The number of streams that it has folded, or of open sagas that it has replayed. 0 at other gates.
    pub done: u64,
    /// The number of all of them, as far as it is known.
    pub of: u64,
}

/// The gates, in the order in which they are passed and shown. The name of a gate is its form in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateName {
    /// The file is a component that imports and exports what the contract defines.
    Component,
    /// The component's manifest is sound.
    Manifest,
    /// A trusted key has signed the component.
    Signature,
    /// The component keeps everything that the running version offers.
    Compatible,
    /// The component requests only what is granted.
    Permissions,
    /// The component asks for everything that is configured for its service.
    Configuration,
    /// SQLite accepts the schema of the read model.
    ReadModel,
    /// The component folds the streams in the log.
    History,
    /// The journals of the open sagas replay on the component.
    Sagas,
    /// The component answers calls.
    WarmUp,
    /// All services that would run can run side by side.
    SideBySide,
}

/// The outcome of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateOutcome {
    /// The gate lets the component through.
    Passed,
    /// The gate does not let the component through, so nothing is deployed.
    Refused,
    /// There was nothing to check, or the operator skipped the gate.
    Skipped,
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_displayed_by_its_name_in_json() {
        assert_eq!(format!("[{:10}]", GateName::WarmUp), "[warm-up   ]");
        assert_eq!(serde_json::to_string(&GateName::WarmUp).unwrap(), "\"warm-up\"");
    }
}
