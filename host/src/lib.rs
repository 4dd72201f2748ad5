//! Kontor: a host for business logic in WebAssembly.
//!
//! The binary `kontor` is the product; this library is its content, so that tests and the testkit can run a
//! host in their own process. Start reading at [`host::run`], then follow a command through [`edge`] and
//! [`aggregate`] into the [`log`].
//!
//! # Layout
//!
//! A module uses only modules further down in this list.
//!
//! - [`host`]: wires the parts of a host, runs them and shuts them down.
//! - [`config`]: flags, environment and `kontor.toml`; hands each part its own limits.
//! - [`edge`]: the ways in, HTTP and NATS.
//! - [`api`]: the wire types of the host's own routes.
//! - [`messaging`]: events published to NATS, messages of NATS as commands, dead letters.
//! - [`audit`]: the acts of operators and deployers, as the log has them.
//! - [`backup`]: export and import of the log.
//! - [`identity`]: the callers of requests: tokens, issuers, certificates.
//! - [`deploy`]: gates, swaps and rollbacks of components.
//! - [`saga`]: journals, runs, retries, undos and timers.
//! - [`query`]: queries, with the position that they must see.
//! - [`projection`]: read models, built from the log.
//! - [`aggregate`]: the way of a command; the only writer of domain events.
//! - [`gc`]: removes what nothing needs any more.
//! - [`deployed`]: the component of each service: deployments as events, the registry and the store.
//! - [`runtime`]: wasmtime: components, instances, limits and imports.
//! - [`cluster`]: members, ownership and the connection to NATS.
//! - [`log`]: the event log, embedded or in JetStream, and snapshots.
//! - [`contract`]: the agreement of host, component and client: manifest, schemas, routes and problem codes.
//! - [`error`]: chains of causes.
//! - [`model`], [`clock`], [`telemetry`]: words of the domain, time, and the host's own log and metrics.
//!
//! `ARCHITECTURE.md` has the invariants of each module.

#![warn(missing_docs)]

pub mod aggregate;
pub mod api;
pub mod audit;
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
mod garbage;
pub mod gc;
pub mod host;
pub mod identity;
pub mod log;
pub mod messaging;
pub mod model;
pub mod projection;
pub mod query;
mod recent;
pub mod runtime;
pub mod saga;
mod shares;
pub mod telemetry;
mod warning;
