//! Which component serves what: deployments as events and what follows from them, the running set, the components by digest.

mod bucket;
mod deployment;
mod gate;
mod registry;
mod store;

pub use bucket::Bucket;
pub use deployment::{ActName, HistoryEntry, Release, Running};
pub(crate) use deployment::{Deployments, Happened, HistoryError, Released, history, releases, stream};
pub use gate::{Gate, GateName, GateOutcome};
pub use registry::{Deployed, Registry, Trigger};
pub use store::{Components, PastError, Store};
