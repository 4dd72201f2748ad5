//! Which components run: deployments as events, the gates that they pass, and the swap.

mod boot;
mod bucket;
mod deployer;
mod deployment;
mod directory;
mod follower;
mod gates;
mod registry;
mod report;
mod shared;
pub mod signature;
mod store;
mod swap;
mod watch;

pub(crate) use boot::{Boot, boot};
pub use boot::{BootError, Booted};
pub use bucket::Bucket;
pub use deployer::{DeployError, DeployGround, DeployRules, Deployer, Options, RollbackRule};
pub(crate) use deployment::{AGGREGATE, Deployments, HistoryError, releases};
pub use deployment::{ActName, HistoryEntry, Release, Running};
pub use directory::DirectoryError;
pub(crate) use directory::MAX_COMPONENT_BYTES;
pub use follower::{FollowError, Follower};
pub use gates::{Grant, InvalidGrant, Upload};
pub use registry::{Deployed, Registry, Trigger};
pub use report::{Gate, GateName, GateOutcome, HostReport, Report, ServiceReport};
pub use signature::PublicKey;
pub use store::{Components, PastError, Store};
