//! The way of a command, whole: `dispatch` decides it, `states` has the aggregates' states folded and kept.

mod dispatch;
mod error;
mod states;

pub use dispatch::{Accepted, Dispatch, DispatchDeps, DispatchLimits, Submit};
pub use error::CommandError;
/// The former name, for rooms that do not have an error of their own yet.
pub use error::CommandError as CallError;
pub use states::{StateCache, Viewed};
