//! The access of routes.

use crate::bindings::exports::kontor::service::manifest;

/// The callers that may use a route. An operator may use every route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without signing in.
    Anyone,
    /// Every caller that has signed in.
    SignedIn,
    /// Callers with one of these roles.
    Roles(&'static [&'static str]),
}

impl From<Access> for manifest::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::Anyone => Self::Anyone,
            Access::SignedIn => Self::SignedIn,
            Access::Roles(roles) => Self::Roles(roles.iter().map(|role| (*role).to_owned()).collect()),
        }
    }
}
