//! Decides which components run: deployments as events, the gates that they pass, and the swap.

mod boot;
mod cluster_sync;
mod dependents;
mod deployer;
mod directory;
mod error;
mod faults;
mod follower;
mod gates;
mod grants;
mod kept;
mod progress;
mod report;
mod rules;
pub mod signature;
mod swap;
mod watch;
mod work;

pub(crate) use boot::{Boot, boot};
pub use boot::{BootError, Booted, Refusal};
pub use deployer::{DeployDeps, Deployer};
pub(crate) use directory::MAX_COMPONENT_BYTES;
pub use directory::{DirectoryError, read as read_directory};
pub use error::DeployError;
pub use follower::{FollowError, Follower};
pub(crate) use gates::FoldMemory;
pub use gates::Upload;
pub use report::{HostReport, Report, ServiceReport};
pub use rules::{DeployRules, Options, RollbackRule};
pub use signature::PublicKey;
pub(crate) use signature::trust;
