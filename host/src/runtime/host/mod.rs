//! The imports of the contract, one file an interface.

mod config;
mod logging;
mod read_model;
mod services;
mod steps;

pub(crate) use read_model::{Access, Guarded, ReadSession};
pub use services::{Ask, AskFailure, Request};
pub use steps::{Awaited, Halt, Outcome, Step, Steps};

impl crate::runtime::bindings::types::Host for crate::runtime::guest::Guest {}
