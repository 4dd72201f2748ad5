//! Checks for the shop: rules that hold for its whole log, whatever the host went through while it wrote that
//! log.
//!
//! | module | what it checks |
//! |---|---|
//! | [`laws`] | stock, payments, deliveries and orders agree, and every command took effect once |
//! | [`step_order`] | each order took the steps of the component version that ran its saga |
//!
//! Both read the log in the form of `GET /events`, so they serve a host over HTTP, a host in the test's own
//! process, and the benchmarks.
#![allow(clippy::unwrap_used, reason = "a check that fails is a test that fails")]

pub mod laws;
pub mod step_order;
