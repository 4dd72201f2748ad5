//! The acts of operators and deployers that the log records.

use serde::{Deserialize, Serialize};

use super::{DEPLOYMENT, Recorded, SAGA, TOKEN};

/// The kind of the streams of acts that nothing else records, one stream an act.
pub(crate) const AUDIT: &str = "audit";

/// An act of an operator or a deployer. Some are done by the host itself, such as an automatic rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display, schemars::JsonSchema)]
#[schemars(rename = "AuditedActName")]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum AuditedAct {
    /// Services were deployed.
    Deploy,
    /// A service was rolled back.
    Rollback,
    /// A service was undeployed.
    Undeploy,
    /// The failed steps or undos of a parked saga were to be retried.
    RetrySaga,
    /// A failed step or undo of a parked saga was left out.
    SkipStep,
    /// A parked saga was ended by hand.
    ResolveSaga,
    /// A read model was to be built anew.
    ReplayProjection,
    /// Parked streams of a read model were to be applied again.
    RedriveProjection,
    /// Dead letters were to be sent again.
    RedriveDeadLetters,
    /// Dead letters were to be removed.
    DiscardDeadLetters,
    /// Everything that nothing needs any more was to be removed.
    CollectGarbage,
    /// A token was made.
    MakeToken,
    /// A token was revoked.
    RevokeToken,
}

/// The events that record acts: the kind of the stream, the name of the event, and the act.
pub(crate) const AUDITED: [(&str, &str, AuditedAct); 13] = [
    (DEPLOYMENT, "deployed", AuditedAct::Deploy),
    (DEPLOYMENT, "rolled-back", AuditedAct::Rollback),
    (DEPLOYMENT, "undeployed", AuditedAct::Undeploy),
    (SAGA, "resumed", AuditedAct::RetrySaga),
    (SAGA, "skipped", AuditedAct::SkipStep),
    (SAGA, "resolved", AuditedAct::ResolveSaga),
    (AUDIT, "replay-requested", AuditedAct::ReplayProjection),
    (AUDIT, "redrive-requested", AuditedAct::RedriveProjection),
    (AUDIT, "dead-letters-redrive-requested", AuditedAct::RedriveDeadLetters),
    (AUDIT, "dead-letters-discard-requested", AuditedAct::DiscardDeadLetters),
    (AUDIT, "garbage-collection-requested", AuditedAct::CollectGarbage),
    (TOKEN, "token-made", AuditedAct::MakeToken),
    (TOKEN, "token-revoked", AuditedAct::RevokeToken),
];

impl AuditedAct {
    /// Returns the act that an event records, if it records one.
    pub(crate) fn of(event: &Recorded) -> Option<Self> {
        let (kind, name) = (event.stream.aggregate(), event.name.as_str());
        let found = AUDITED.iter().find(|(of, named, _)| (*of, *named) == (kind, name));
        found.map(|(.., act)| *act)
    }
}
