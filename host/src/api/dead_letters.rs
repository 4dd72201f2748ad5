//! Dead letters: messages of NATS that could not become commands. The items of the list are
//! [`crate::messaging::DeadLetter`], the replies are [`crate::messaging::Redriven`] and
//! [`crate::messaging::Discarded`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The parameters of `GET /admin/dead-letters`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterListQuery {
    /// Only messages for this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The start of the page: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Maximum number of dead letters to return. Default: 100; maximum: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

/// Sends dead letters again: one, those for a service, or all, up to 1000 at once. The next ones are behind
/// `next` of the reply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveDeadLetters {
    /// Only the dead letter with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub id: Option<u64>,
    /// Only dead letters for this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9-]+$"))]
    pub service: Option<String>,
    /// Only dead letters behind this id: `next` of the reply before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// The reason. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub reason: Option<String>,
}

/// Removes dead letters: one, those for a service, or all, up to 1000 at once. The next ones are behind
/// `next` of the reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscardDeadLetters {
    /// Only the dead letter with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub id: Option<u64>,
    /// Only dead letters for this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9-]+$"))]
    pub service: Option<String>,
    /// Only dead letters behind this id: `next` of the reply before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// The reason. It stays in the log.
    #[schemars(length(min = 1, max = 1_000), regex(pattern = r"\S"))]
    #[schemars(extend("examples" = ["the carrier has sent it twice, ticket 4711"]))]
    pub reason: String,
}
