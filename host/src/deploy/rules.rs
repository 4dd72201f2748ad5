//! The operator's configuration of deployments, and the options of a single one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::signature::PublicKey;
use crate::clock::milliseconds;
use crate::contract::{Grant, Places, ReservedRoute};
use crate::runtime::Grants;

/// The operator's configuration of deployments.
#[derive(Clone, Debug)]
pub struct DeployRules {
    /// The keys that may sign components. Empty: components need not be signed.
    pub trusted: Vec<PublicKey>,
    /// The grants of the configuration for what services request inside the host, by service.
    pub grants: BTreeMap<String, Vec<Grant>>,
    /// The longest time that a new version may take to fold the streams in the log.
    pub history_limit: Duration,
    /// The rule by which a faulty version is rolled back.
    pub rollback: RollbackRule,
    /// The steps whose retries are configured: `<saga>/<step>`.
    pub retried: Vec<String>,
    /// The places of the keys in the configuration.
    pub places: Places,
    /// The routes of the host itself, which no service may have.
    pub reserved: Vec<ReservedRoute<()>>,
}

impl DeployRules {
    /// Returns the grants of the configuration.
    pub(crate) fn configured_grants(&self) -> Grants {
        let grants = self.grants.iter();
        grants.map(|(service, grants)| (service.as_str().into(), grants.iter().cloned().collect())).collect()
    }
}

/// The rule by which the host rolls back a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RollbackRule {
    /// The time after the swap for which a new version is watched. 0: it is not watched.
    #[serde(rename = "window_ms", deserialize_with = "milliseconds")]
    pub window: Duration,
    /// The percentage of its calls that may fault more than on the version before, command by command.
    pub percent: u64,
    /// The number of such faults below which nothing is rolled back.
    pub faults: u64,
}

impl Default for RollbackRule {
    fn default() -> Self {
        // A defect that every tenth call meets shows within a minute, and one bad request is no reason.
        Self { window: Duration::from_secs(60), percent: 5, faults: 5 }
    }
}

/// The options of a deployment, a rollback or an undeployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// True for a dry run: the gates check, and nothing is changed.
    pub dry_run: bool,
    /// The reason, for readers of the history.
    pub note: Option<String>,
    /// The number of streams of each aggregate that are folded. None: all of them.
    pub sample: Option<usize>,
    /// The names of the breaking changes that are allowed: `command:order/create`.
    pub allow_breaking: Vec<String>,
    /// The grants of this deployment: `service:payment`.
    pub grants: Vec<String>,
    /// True if the components come from the host's own directory. They are granted what they request inside
    /// the host, because only the operator writes there.
    pub from_directory: bool,
}
