#![warn(missing_docs)]
//! Tests of Kontor services: the real component, in the real runtime, without a host around it.
//!
//! ```no_run
//! use kontor_testkit::{Service, event, json};
//!
//! // In a service's tests/rules.rs, with #[test].
//! fn reserving_more_than_there_is_is_refused() {
//!     Service::load("inventory")
//!         .aggregate("product", "p1")
//!         .given([event("product-registered", json!({"name": "Tea", "unit_price": 450, "quantity": 2}))])
//!         .when("reserve", json!({"order_id": "o1", "quantity": 3}))
//!         .then_rejected("insufficient-stock")
//!         .with_details(json!({"available": 2}));
//! }
//! ```
//!
//! `cargo xtask build` builds the components. The first test of a component compiles it, and keeps the code in
//! `target/testkit` for all others: they start in milliseconds.
//!
//! A test says what a command leads to. Beside that, every `when` checks what no test should have to say:
//!
//! | what must hold | what it finds |
//! |---|---|
//! | the payload follows the manifest's schema of the command, else the answer is `invalid-payload`, as the host's is | a schema that is stricter than the rules |
//! | the events and the view follow their schemas | a schema that has not kept up with the code |
//! | the command decided again, and on a fresh instance, leads to the same, and sends the same over HTTP | state that is hidden between calls |
//! | the command decided on the stored state leads to the same | state that does not survive being stored |
//! | folding all events from nothing makes the state and the view that the decision came with | an `evolve` that depends on more than the events |
//!
//! A saga runs on the host's own runner, with the answers that the test has for its steps:
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
//!     .then_sends("reserve-tea", &command("product", "tea", "reserve", json!({"order_id": "o1", "quantity": 3})))
//!     .then_undoes(["reserve-tea", "trigger"])
//!     .then_compensated("card-declined");
//! ```
//!
//! What no test has to say: started again from every point at which the host may have been killed, the saga goes the same
//! way.
//!
//! Queries are tried out on what has happened, with a read database like the host's:
//!
//! ```no_run
//! # use kontor_testkit::{Service, event, json};
//! # fn example() {
//! Service::load("inventory")
//!     .events([("product", "p1", event("product-registered", json!({"name": "Tea", "unit_price": 450, "quantity": 2})))])
//!     .query("products", json!({"limit": 1}))
//!     .then(json!({
//!         "items": [{"id": "p1", "name": "Tea", "unit_price": 450, "available": 2, "reserved": 0, "shipped": 0}],
//!         "next": null,
//!     }));
//! # }
//! ```
//!
//! Every `query` checks what no test should have to say:
//!
//! | what must hold | what it finds |
//! |---|---|
//! | the read model follows each event that is given | an event's name that is written wrong, or a subscription forgotten |
//! | the events applied all at once and one by one, on a fresh instance each, lead to the same answer | state kept between calls, rows kept back until the end of a batch |
//! | the arguments follow their schema, else the answer is `invalid-arguments`; the answer follows its own | a schema that has not kept up with the code |
//!
//! Beside services, [`log`] has the conformance suite that every event log must pass, and [`shop`] the laws of the shop.

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
