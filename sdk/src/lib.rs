#![warn(missing_docs)]
//! The SDK for Kontor services: aggregates, sagas, queries and read models as plain Rust.
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
//! #[serde(rename_all = "kebab-case")]
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
//!     ) -> Result<Vec<CounterEvent>, Error> {
//!         let left = 100 - counter.map_or(0, |counter| counter.count);
//!         if by > left {
//!             let rejection = Rejection::new("counted-out", format!("Only {left} can be counted."));
//!             return Err(rejection.with(json!({ "left": left })).into());
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
//! Every call answers with a value or an [`Error`]: a [`Rejection`], which is a business "no" and part of the
//! answer, or a fault, which is a technical failure (a configuration that cannot be read, a service that does
//! not answer). The host shows a fault and retries the call where that is safe. `?` passes both on.

use serde::de::DeserializeOwned;

mod access;
mod aggregate;
#[doc(hidden)]
pub mod bindings;
mod caller;
mod command;
mod day;
pub mod db;
mod error;
#[doc(hidden)]
pub mod exports;
pub mod http;
mod json;
mod page;
mod query;
mod read_model;
mod rejection;
mod saga;
mod schema;
mod service;
pub mod services;
mod shares;

pub use access::{Access, Readers};
pub use aggregate::{Aggregate, Context};
pub use bindings::kontor::service::logging::{Level, log};
pub use bindings::kontor::service::types::{Event, RecordedEvent};
pub use caller::Caller;
pub use command::Command;
pub use day::Day;
pub use error::Error;
pub use page::{Cursor, Page, PageLimit};
pub use query::Query;
pub use read_model::{Batch, ReadModel};
pub use rejection::Rejection;
pub use saga::{Outcome, Run, Saga, Trigger};
pub use service::{MessageId, Service, Target, command, query, view};
pub use shares::Shares;

/// The names that nearly every file of a service uses.
pub mod prelude {
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::json;

    pub use crate::db::SqlError;
    pub use crate::{
        Access, Aggregate, Batch, Caller, Command, Context, Error, MessageId, Page, PageLimit, Query,
        ReadModel, Readers, RecordedEvent, Rejection, Run, Saga, Service, Trigger, command, params, query,
        view,
    };
}

/// Reads a value of the service's configuration: `None` if the operator has not set it, a fault if it is not
/// a `T`.
///
/// The key must be declared with [`Service::setting`].
pub fn config<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    let value = bindings::kontor::service::config::get(key);
    value.map(|value| json::read(&value, format_args!("the configuration {key}"))).transpose()
}

/// Returns the caller of the query that runs. An answer that has looked at its caller is kept by no other
/// client.
pub fn caller() -> Caller {
    bindings::kontor::service::callers::current().into()
}

/// Ends the call as a fault with this sentence, which the host shows: for what cannot be, as a panic is.
pub fn fail(message: &str) -> ! {
    #[cfg(target_arch = "wasm32")]
    bindings::kontor::service::logging::fail(message);
    panic!("{message}")
}

/// The service in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
