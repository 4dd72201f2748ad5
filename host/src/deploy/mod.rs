//! Which components run: deployments as events, the gates that they pass, and the swap.

mod boot;
mod deployer;
mod directory;
mod follower;
mod gates;
mod report;
mod shared;
pub mod signature;
mod swap;
mod watch;

pub(crate) use boot::{Boot, boot};
pub use boot::{BootError, Booted};
pub use deployer::{DeployDeps, DeployError, DeployRules, Deployer, Options, RollbackRule};
pub use directory::DirectoryError;
pub(crate) use directory::MAX_COMPONENT_BYTES;
pub use follower::{FollowError, Follower};
pub use gates::Upload;
pub use report::{HostReport, Report, ServiceReport};
pub use signature::PublicKey;
