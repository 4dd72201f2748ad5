//! Sagas: the acts of operators. The replies are [`crate::saga::SagaStatus`], [`crate::saga::Overview`] and
//! [`crate::saga::timeline::Timeline`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::saga::SagaState;

/// The parameters of `GET /admin/sagas`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SagaListQuery {
    /// Only sagas in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SagaState>,
    /// Only sagas of this name: `place-order`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The start of the page: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Maximum number of sagas to return. Default: 100; maximum: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

/// Retries what failed in a parked saga.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// The reason. It stays in the saga's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub reason: Option<String>,
}

/// Skips one failed step or undo of a parked saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SkipRequest {
    /// The failed step, or the step whose undo failed. May be omitted if there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The reason. It stays in the saga's journal.
    #[schemars(length(min = 1, max = 1_000), regex(pattern = r"\S"))]
    #[schemars(extend("examples" = ["the carrier was called, ticket 4711"]))]
    pub reason: String,
}

/// Ends a parked saga that an operator has settled by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The reason. It stays in the saga's journal.
    #[schemars(length(min = 1, max = 1_000), regex(pattern = r"\S"))]
    #[schemars(extend("examples" = ["refunded by hand, ticket 4711"]))]
    pub reason: String,
}
