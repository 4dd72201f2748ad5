//! The way of a command, whole: `dispatch` decides it, `states` has the aggregates' states folded and kept.

mod dispatch;
mod error;
mod states;

pub use dispatch::{Accepted, Dispatch, DispatchLimits, Submit};
pub use error::CallError;
pub use states::{States, Viewed};
