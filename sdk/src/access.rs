//! The callers that may use a route, and those that may see an aggregate.

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
            Access::Roles(roles) => Self::Roles(owned(roles)),
        }
    }
}

/// The callers that may see the view of one aggregate: its owner, and those with one of the roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readers {
    /// The member of the view that holds the owner's subject: `user_id`.
    pub owner: &'static str,
    /// The roles that may see the view of every aggregate of the kind.
    pub roles: &'static [&'static str],
}

impl From<Readers> for manifest::Readers {
    fn from(Readers { owner, roles }: Readers) -> Self {
        Self { owner: owner.to_owned(), roles: owned(roles) }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
