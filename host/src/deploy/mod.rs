//! Which components run.

mod deployer;
mod directory;
mod registry;
mod report;
pub mod signature;
mod store;

pub use deployer::{ActName, DeployError, Deployer, HistoryEntry, Options, Release, Running, Upload};
pub(crate) use directory::MAX_COMPONENT_BYTES;
pub use directory::{DirectoryError, load};
pub use registry::{Deployed, Registry, Trigger};
pub use report::{Gate, GateName, GateOutcome, Report, ServiceReport};
pub use store::{Components, PastError, Store};
