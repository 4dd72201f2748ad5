//! The codes of problems, as the host explains them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The explanation of a problem code: the content behind a problem's `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemExplanation {
    /// The code.
    pub code: String,
    /// The HTTP status.
    pub status: u16,
    /// The title.
    pub title: String,
    /// The meaning, in one or two sentences.
    pub meaning: String,
    /// The action to take.
    pub advice: String,
}
