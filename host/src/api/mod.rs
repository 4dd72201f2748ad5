//! The wire types of the host's own routes: parameters, request bodies and replies, once for the HTTP edge, its OpenAPI
//! document, the CLI and the testkit. A type of the domain that is sent as it is keeps its place and is used from there.

mod commands;
mod dead_letters;
mod events;
mod plugins;
mod problems;
mod projections;
mod sagas;
mod status;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::commands::{CommandReply, SagaRef};
pub use self::dead_letters::{DeadLetterListQuery, DeadLetterSelection, DiscardedDeadLetters};
pub use self::events::{AggregateState, Event, EventsQuery, StreamQuery};
pub use self::plugins::{
    DeployQuery, Plugin, PluginChange, PluginRelease, PluginRoute, RollbackRequest, UndeployQuery,
    UndeployedPlugin,
};
pub use self::problems::ProblemExplanation;
pub use self::projections::{ProjectionDetails, RedriveRequest, ReplayRequest};
pub use self::sagas::{ResolveRequest, RetryRequest, SagaListQuery, SkipRequest};
pub use self::status::{Health, HealthStatus, Readiness, ReadinessStatus};

/// The longest reason or note that an operator may give, in characters. It stays in the log for ever.
pub const MAX_REASON_LENGTH: usize = 1_000;

/// A whole list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T, P> {
    /// The items.
    pub items: Vec<T>,
    /// The value of `after` for the next page; null on the last page.
    pub next: Option<P>,
}

/// The parameters of a list that is read by the page, in the order of `P`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery<P> {
    /// The start of the page: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<P>,
    /// Maximum number of items to return. Default: 100; maximum: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}
