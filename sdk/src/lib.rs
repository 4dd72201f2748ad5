#![warn(missing_docs)]
//! What a Kontor service is written with: aggregates, sagas, queries and read models, as plain Rust.
//!
//! A whole service:
//!
//! ```
//! use kontor_sdk::prelude::*;
//!
//! kontor_sdk::export!(service);
//!
//! fn service() -> Service {
//!     Service::new("counting", "1.0.0", "Counters that only go up.")
//!         .aggregate::<Counter>()
//!         .post("/counters/{id}/count", command::<Counter>("count"))
//!         .get("/counters/{id}", view::<Counter>())
//! }
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Counter {
//!     count: u64,
//! }
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(rename_all = "kebab-case", deny_unknown_fields)]
//! enum CounterCommand {
//!     /// Counts up to 100 and no further.
//!     Count { by: u64 },
//! }
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! #[serde(rename_all = "kebab-case", deny_unknown_fields)]
//! enum CounterEvent {
//!     Counted { by: u64 },
//! }
//!
//! /// A counter.
//! #[derive(Serialize, JsonSchema)]
//! struct CounterView {
//!     id: String,
//!     count: u64,
//! }
//!
//! impl Aggregate for Counter {
//!     const NAME: &str = "counter";
//!     type Command = CounterCommand;
//!     type Event = CounterEvent;
//!     type View = CounterView;
//!
//!     fn decide(
//!         counter: Option<&Self>,
//!         CounterCommand::Count { by }: CounterCommand,
//!         _: &Context,
//!     ) -> Result<Vec<CounterEvent>, Rejection> {
//!         let left = 100 - counter.map_or(0, |counter| counter.count);
//!         if by > left {
//!             let rejection = Rejection::new("counted-out", format!("Only {left} can be counted."));
//!             return Err(rejection.with(json!({ "left": left })));
//!         }
//!         Ok(vec![CounterEvent::Counted { by }])
//!     }
//!
//!     fn evolve(&mut self, CounterEvent::Counted { by }: CounterEvent) {
//!         self.count += by;
//!     }
//!
//!     fn view(&self, id: &str) -> CounterView {
//!         CounterView { id: id.to_owned(), count: self.count }
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! A rejection is a business "no" and part of the answer. What is technically impossible (a configuration that cannot be
//! read, a service that does not answer) is a panic: the host shows it as a fault and tries again where that is safe.

use serde::de::DeserializeOwned;

mod aggregate;
#[doc(hidden)]
pub mod bindings;
pub mod db;
#[doc(hidden)]
pub mod exports;
pub mod http;
mod json;
mod read_model;
mod rejection;
mod saga;
mod schema;
mod service;
pub mod services;

pub use aggregate::{Aggregate, Context};
pub use bindings::kontor::service::logging::{Level, log};
pub use bindings::kontor::service::types::{Event, RecordedEvent};
pub use read_model::{Batch, ReadModel};
pub use rejection::Rejection;
pub use saga::{Command, Outcome, Saga};
pub use service::{MessageId, Service, Target, command, query, view};

/// What nearly every file of a service uses.
pub mod prelude {
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::json;

    pub use crate::db::SqlError;
    pub use crate::services::Failure;
    pub use crate::{
        Aggregate, Batch, Command, Context, MessageId, ReadModel, RecordedEvent, Rejection, Saga, Service,
        command, params, query, view,
    };
}

/// A value of the service's configuration; none if the operator has not set it. The key must be named with
/// [`Service::asks_config`]. Panics, which is a fault, if the value is no `T`.
pub fn config<T: DeserializeOwned>(key: &str) -> Option<T> {
    let value = bindings::kontor::service::config::get(key)?;
    match serde_json::from_str(&value) {
        Ok(value) => Some(value),
        Err(error) => panic!("the configuration {key} cannot be read: {error}"),
    }
}

/// The service in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
