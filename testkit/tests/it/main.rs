//! Tests of the testkit, and of the host's parts in the test's own process, with fixtures and the services of
//! this repository.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic, wherever that is")]

mod beasts;
mod dispatch;
mod drill;
mod faults;
mod jetstream;
mod log;
mod log_faults;
mod log_killed;
mod queries;
mod read_versions;
mod saga_faults;
mod saga_recovery;
mod saga_time;
mod service;
mod shop_sagas;
