//! The section `[auth]` of the configuration.

use serde::Deserialize;

/// The section `[auth]`. Requests are authenticated if it is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthOptions {}
