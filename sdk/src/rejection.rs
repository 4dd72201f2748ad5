//! A business "no".

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bindings::kontor::service::types;

/// A business "no": an answer, never retried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// Stable and machine-readable, in kebab-case: `insufficient-stock`.
    pub code: String,
    /// One sentence for the caller.
    pub message: String,
    /// The facts behind the code: `{"available": 3}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

impl Rejection {
    /// Makes a rejection without details.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), details: None }
    }

    /// Adds the facts behind the code, a JSON object.
    pub fn with(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Rejection {}

impl From<Rejection> for types::Rejection {
    fn from(rejection: Rejection) -> Self {
        Self {
            code: rejection.code,
            message: rejection.message,
            details: rejection.details.map(|details| details.to_string()),
        }
    }
}

impl From<types::Rejection> for Rejection {
    fn from(rejection: types::Rejection) -> Self {
        Self {
            code: rejection.code,
            message: rejection.message,
            details: rejection.details.and_then(|details| serde_json::from_str(&details).ok()),
        }
    }
}
