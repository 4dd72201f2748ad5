//! Read models. The other replies are [`Overview`] and [`crate::projection::Redrive`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::model::{Position, STREAM_PATTERN};
use crate::projection::{Overview, ParkedStream};

/// A read model with some of its parked streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectionDetails {
    /// The state of the read model.
    #[serde(flatten)]
    pub overview: Overview,
    /// One page of the parked streams, in the order of the events that failed.
    pub parked_streams: Vec<ParkedStream>,
    /// The value of `after` for the next page; null on the last page.
    pub next: Option<Position>,
}

/// Applies the events of parked streams again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveRequest {
    /// Only this stream. Default: all that are parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = STREAM_PATTERN), extend("examples" = ["order/A-1"]))]
    pub stream: Option<String>,
    /// The reason. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub reason: Option<String>,
}

/// Rebuilds a read model from the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Only events recorded at this time or later. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["2026-11-01T00:00:00Z"]))]
    pub from: Option<Time>,
    /// The reason. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub reason: Option<String>,
}
