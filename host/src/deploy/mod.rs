//! Which components run.

mod registry;

pub use registry::{Deployed, Registry, Trigger};
