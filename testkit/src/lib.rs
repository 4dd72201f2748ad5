#![warn(missing_docs)]
//! Tests for Kontor services: the real component in the real runtime, without a host around it.
//!
//! ```no_run
//! use kontor_testkit::{Service, event, json};
//!
//! // In a service's tests/rules.rs, with #[test].
//! fn reserving_more_than_there_is_is_rejected() {
//!     Service::load("inventory")
//!         .aggregate("product", "p1")
//!         .given([event("product-registered", json!({"name": "Tea", "unit_price": 450, "quantity": 2}))])
//!         .when("reserve", json!({"order_id": "o1", "quantity": 3}))
//!         .then_rejected("insufficient-stock")
//!         .with_details(json!({"available": 2}));
//! }
//! ```
//!
//! `cargo xtask build` builds the components. The first test of a component compiles it and keeps the code in
//! `target/testkit` for all other tests: they start in milliseconds.
//!
//! A test states the outcome of a command. In addition, each `when` checks rules that no test has to state:
//!
//! | rule | error found |
//! |---|---|
//! | the payload follows the command's schema, else `invalid-payload` | a schema stricter than the rules |
//! | the events and the view follow their schemas | a schema that lags behind the code |
//! | decided again, also on a fresh instance: same outcome, same HTTP requests | state hidden between calls |
//! | decided on the stored state: same outcome | state that does not survive storage |
//! | all events, folded from the start: same state and view | an `evolve` that depends on more |
//! | all events with one more member: they are folded | events that no later version could extend |
//!
//! A saga runs on the host's own runner and gets the test's answers to its steps:
//!
//! ```no_run
//! # use kontor_testkit::{Service, command, event, json};
//! let orders = Service::load("order");
//! orders
//!     .saga("place-order")
//!     .when_step("pay")
//!     .rejects("card-declined")
//!     .on("order", "o1", event("order-created", json!({"lines": [{"product_id": "tea", "quantity": 3}]})))
//!     .then_steps(["reserve-tea", "pay"])
//!     .then_sends(
//!         "reserve-tea",
//!         &command("product", "tea", "reserve", json!({"order_id": "o1", "quantity": 3})),
//!     )
//!     .then_undoes(["reserve-tea", "trigger"])
//!     .then_compensated("card-declined");
//! ```
//!
//! Each such run is repeated from every point at which the host may be killed: the saga must take the same
//! course.
//!
//! Queries read events that happened, from a read database like the host's:
//!
//! ```no_run
//! # use kontor_testkit::{Service, event, json};
//! # fn example() {
//! let tea = json!({"name": "Tea", "unit_price": 450, "quantity": 2});
//! Service::load("inventory")
//!     .events([("product", "p1", event("product-registered", tea))])
//!     .query("products", json!({"limit": 1}))
//!     .then(json!({
//!         "items": [
//!             {"id": "p1", "name": "Tea", "unit_price": 450, "available": 2, "reserved": 0, "shipped": 0},
//!         ],
//!         "next": null,
//!     }));
//! # }
//! ```
//!
//! Each `query` checks further rules that no test has to state:
//!
//! | rule | error found |
//! |---|---|
//! | the read model follows each given event | a misspelled event name, a forgotten subscription |
//! | events applied at once and one by one: same answer | state kept between calls or until a batch ends |
//! | arguments (else `invalid-arguments`) and answer follow the schemas | a schema behind the code |
//!
//! [`log`] has the conformance suite that every event log must pass, [`host`] a whole host in the test's
//! process, [`sagas`] a drill with every failure at every step, and [`shop`] the laws of the shop.

mod clock;
mod command;
mod components;
pub mod host;
pub mod log;
pub mod nats;
pub mod sagas;
mod service;
pub mod shop;

pub use clock::TestClock;
pub use command::{Command, command};
pub use serde_json::json;
pub use service::{Aggregate, Event, History, Outcome, Reading, Saga, Sent, Service, Step, Story, event};
