//! The deployed services: deployments as events with their fold, the running set, and the components by
//! digest.

mod component_store_nats;
mod deployment;
mod error;
mod gate_result;
mod history_entry;
mod registry;
mod store;
mod trial;
mod triggers;

pub use component_store_nats::Bucket;
pub(crate) use deployment::{Deployments, Happened, Released, history, releases};
pub use deployment::{Release, Running};
pub use error::{HistoryError, RecordError};
pub use gate_result::{GateName, GateOutcome, GateResult, GateStep};
pub use history_entry::{ActName, HistoryEntry};
pub use registry::{Deployed, Registry, ServiceConflict};
pub use store::{Components, PastError, Store, Trust};
pub use trial::{Kept, Return, Trial};
pub(crate) use triggers::FollowedTriggers;
pub use triggers::{DeploymentHistory, ReleasedSaga, Trigger, Triggers};
