//! What the gates of a deployment found, as it stands in the deployment's event.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What one gate found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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
