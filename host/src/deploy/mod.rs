//! Which components run.

mod directory;
mod registry;

pub use directory::{DirectoryError, load};
pub use registry::{Deployed, Registry, Trigger};
