//! The codes of problems, as the host explains them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::ProblemCode;

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

impl From<ProblemCode> for ProblemExplanation {
    fn from(code: ProblemCode) -> Self {
        Self {
            code: code.name().to_owned(),
            status: code.status().as_u16(),
            title: code.title().to_owned(),
            meaning: code.meaning().to_owned(),
            advice: code.advice().to_owned(),
        }
    }
}
