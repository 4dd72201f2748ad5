//! The imports of the contract, one file an interface.

mod callers;
mod config;
mod http;
mod logging;
mod read_model;
mod services;
mod steps;

pub use http::{
    GrantError, HeaderError, HttpClient, HttpFailure, HttpFailureKind, HttpLimits, HttpRequest, HttpResponse,
    Outgoing, Resolve, system_resolver,
};
pub(crate) use http::{HttpAccess, HttpCall, HttpHooks, grant_errors, grant_to_add};
pub(crate) use read_model::{Guarded, ReadSession};
pub use services::{Ask, AskFailure, Request};
pub use steps::{Action, Awaited, Halt, Outcome, STEP_ZERO, Step, Steps};

impl crate::runtime::bindings::types::Host for crate::runtime::call::Guest<'_> {}
