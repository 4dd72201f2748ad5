//! The deployed services: deployments as events with their fold, the running set, and the components by
//! digest.

mod component_store_nats;
mod deployment;
mod gate_result;
mod registry;
mod store;

pub use component_store_nats::Bucket;
pub use deployment::{ActName, HistoryEntry, Release, Running};
pub(crate) use deployment::{Deployments, Happened, HistoryError, Released, history, releases, stream};
pub use gate_result::{GateName, GateOutcome, GateResult};
pub use registry::{Deployed, Registry, ServiceConflict, Trigger};
pub use store::{Components, PastError, Store};
