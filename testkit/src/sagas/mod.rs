//! Sagas with everything that can go wrong on their way.
//!
//! One saga is run undisturbed to learn its steps, and refused at its pivot to learn its undos. Then it is run again and
//! again, each time with another mishap at another of these:
//!
//! | mishap | at a step before the pivot, or at it | at a step after the pivot | at an undo |
//! |---|---|---|---|
//! | it is refused | everything is undone | it is tried again | it is tried again |
//! | it fails once; its answer is lost; it is sent twice | as if nothing had been | the same | the same |
//! | it fails for good | everything is undone | the saga parks; retried by a person, it completes | all others are undone and the saga parks; retried, it is compensated |
//! | the host is killed before it, or after it and before its entry in the journal | the next host goes on | the same | the same |
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
//!     .given([command("product", "tea", "register", json!({"name": "Tea", "unit_price": 1, "quantity": 2}))])
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
