//! Tokens. The items of the list, and the reply to a revocation, are [`crate::identity::TokenInfo`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::identity::TokenInfo;

/// Printable characters, without blanks at the ends.
const PRINTABLE: &str = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$";

/// The request for a new token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The user or program that is to use it. It stays in the log with all that it does.
    #[schemars(length(min = 1, max = 128), regex(pattern = PRINTABLE), extend("examples" = ["ann"]))]
    pub subject: String,
    /// Its roles, up to 32: `operator`, `deployer`, `auditor`, `monitor`, or one that a service knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64), regex(pattern = "^[a-z0-9]+([:-][a-z0-9]+)*$")))]
    #[schemars(extend("examples" = [["clerk"]]))]
    pub roles: Vec<String>,
    /// The time from which it is not valid any more. Without one it is valid until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// Its purpose. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub note: Option<String>,
}

/// A new token. Its text is never shown again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MadeToken {
    /// The token, for `Authorization: Bearer`.
    pub token: String,
    /// Its description.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// The parameters of `DELETE /admin/tokens/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeQuery {
    /// The reason. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub reason: Option<String>,
}
