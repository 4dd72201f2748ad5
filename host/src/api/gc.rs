//! The garbage of a host. The items of the replies are [`crate::gc::Collected`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Removes what nothing needs any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// The reason. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub reason: Option<String>,
}
