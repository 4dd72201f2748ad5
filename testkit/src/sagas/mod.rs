//! A drill for sagas: every failure at every step.
//!
//! One saga runs undisturbed, so that the drill learns its steps, and is rejected at its pivot, so that it
//! learns its undos. Then it runs again and again, each time with another mishap at another point:
//!
//! | mishap | at a step up to the pivot | at a step after it | at an undo |
//! |---|---|---|---|
//! | rejected | everything is undone | retried | retried |
//! | fails once, answer lost, sent twice | as if nothing had happened | the same | the same |
//! | fails for good | everything is undone | parks; retry completes | others run; parks; ends on retry |
//! | host killed before it or before its entry | the next host continues | the same | the same |
//!
//! Each time the saga must end as the table says, and the laws of the domain must hold.
//!
//! ```no_run
//! use kontor_testkit::host::Services;
//! use kontor_testkit::sagas::Drill;
//! use kontor_testkit::{command, json};
//!
//! let services = Services::load(&["order", "payment", "delivery", "inventory"], &json!({}));
//! Drill::new(&services)
//!     .given([command(
//!         "product", "tea", "register", json!({"name": "Tea", "unit_price": 1, "quantity": 2}),
//!     )])
//!     .when(command("order", "o1", "create", json!({})))
//!     .then(|host| assert_eq!(host.view("product", "tea")["reserved"], 1));
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a check that fails is a test that fails"
)]

mod drill;
mod mishap;

pub use drill::{Drill, Started};
