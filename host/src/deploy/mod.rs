//! Which components run.

mod directory;
mod registry;
mod store;

pub use directory::{DirectoryError, load};
pub use registry::{Deployed, Registry, Trigger};
pub use store::{Components, PastError, Store};
