//! Kontor: a host for business logic in WebAssembly. The map of this crate is in ARCHITECTURE.md.

pub mod aggregate;
pub mod api;
mod background;
pub mod backup;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod contract;
pub mod deploy;
pub mod deployed;
pub mod edge;
pub mod error;
pub mod host;
pub mod log;
pub mod messaging;
pub mod model;
pub mod projection;
pub mod query;
pub mod runtime;
pub mod saga;
pub mod telemetry;
