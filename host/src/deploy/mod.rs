//! STUB, being written. Which components run.

mod registry;

pub use registry::{Deployed, Registry, Service};
