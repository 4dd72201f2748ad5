//! Kontor: a host for business logic in WebAssembly. The map of this crate is in ARCHITECTURE.md.

mod background;
pub mod backup;
pub mod clock;
pub mod config;
pub mod deploy;
pub mod dispatch;
pub mod edge;
pub mod error;
pub mod host;
pub mod log;
pub mod manifest;
pub mod messaging;
pub mod model;
pub mod nats;
pub mod nodes;
pub mod projection;
pub mod query;
pub mod runtime;
pub mod saga;
pub mod state;
pub mod telemetry;
