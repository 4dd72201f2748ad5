//! The facts that host, component and client agree on: the manifest, its schemas and routes, the grants of
//! operators, and the problems of every edge.

mod access;
mod action;
mod address;
mod arguments;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
pub(crate) mod fuzz;
mod grants;
mod manifest;
#[cfg(test)]
mod near;
mod origin;
mod payload;
mod places;
mod problem;
mod problem_code;
#[cfg(test)]
mod problem_reference;
mod refs;
mod routes;
mod schema;
mod schemas;
pub mod settings;
pub(crate) mod subjects;

pub use access::{Access, Denied};
pub use grants::{Grant, Grants, HttpGrant, InvalidGrant, Secret, SecretError, SecretSource};
pub use manifest::{
    Aggregate, CONFIGURED, Command, Event, IdSource, Manifest, Method, Permissions, Publication, Query,
    ReadModel, Readers, Route, Saga, Setting, Subscription, Target,
};
pub use origin::{HttpOrigin, NoOrigin};
pub use places::Places;
pub use problem::ProblemBody;
pub use problem_code::{ProblemCode, ProblemGroup};
pub use refs::{CommandRef, EventRef, InvalidRef};
pub use routes::{ReservedRoute, RouteError, RouteTable};
pub use schema::Violation;
pub use schemas::Schemas;
pub use settings::{Finding, Findings};

pub(crate) use action::{Action, CommandRoute, QueryRoute, placeholders};
pub(crate) use address::is_public;
pub(crate) use arguments::{Arguments, Kind};
pub(crate) use payload::{arguments, arguments_schema, checked, payload, view_arguments};
pub(crate) use problem::{PROBLEM_JSON, Problem};
pub(crate) use routes::Found;
#[cfg(test)]
pub(crate) use routes::{RESERVED_PARTS, first_part};
pub(crate) use schema::Schema;
