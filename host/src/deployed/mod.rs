//! The deployed services: deployments as events with their fold, the running set, and the components by
//! digest.

mod component_store_nats;
mod deployment;
mod error;
mod gate_result;
mod registry;
mod store;
mod triggers;

pub use component_store_nats::Bucket;
pub use deployment::{ActName, HistoryEntry, Release, Running};
pub(crate) use deployment::{Deployments, Happened, Released, history, releases};
pub use error::{HistoryError, RecordError};
pub use gate_result::{GateName, GateOutcome, GateResult};
pub use registry::{Deployed, Registry, ServiceConflict};
pub use store::{Components, PastError, Store};
pub(crate) use triggers::FollowedTriggers;
pub use triggers::{DeploymentHistory, ReleasedSaga, Trigger, Triggers};
