//! The access of routes: the callers that may use one.

use serde::{Deserialize, Serialize};

use crate::model::{Caller, OPERATOR, Role};

/// The callers that may use a route. An operator may use every route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Everybody, without signing in.
    Anyone,
    /// Every caller that has signed in.
    #[default]
    SignedIn,
    /// Callers with one of these roles.
    Roles(Vec<Role>),
}

/// The reason why a caller may not use a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller must sign in first.
    #[error("sign in first")]
    NotSignedIn,
    /// The caller has none of the roles.
    #[error("it takes one of the roles {}", list(.0))]
    NoRole(Vec<Role>),
}

impl Access {
    /// Fails if the caller may not use the route.
    pub fn check(&self, caller: &Caller) -> Result<(), Denied> {
        match self {
            Self::Anyone => Ok(()),
            _ if caller.has(OPERATOR) => Ok(()),
            _ if caller.subject.is_none() && caller.roles.is_empty() => Err(Denied::NotSignedIn),
            Self::SignedIn => Ok(()),
            Self::Roles(roles) => match roles.iter().any(|role| caller.has(role.as_str())) {
                true => Ok(()),
                false => Err(Denied::NoRole(roles.clone())),
            },
        }
    }
}

fn list(roles: &[Role]) -> String {
    roles.iter().map(Role::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_for_its_callers_and_for_operators() {
        let clerks = || Access::Roles(vec!["clerk".into(), "auditor".into()]);
        let nobody = Caller::default();
        let ann = Caller::named("ann");
        let cleo = Caller { roles: ["clerk".into()].into(), ..Caller::named("cleo") };
        let operator = Caller::unauthenticated_operator();
        let no_role = "it takes one of the roles clerk, auditor";
        for (access, caller, expected) in [
            (Access::Anyone, &nobody, None),
            (Access::SignedIn, &nobody, Some("sign in first")),
            (Access::SignedIn, &ann, None),
            (clerks(), &nobody, Some("sign in first")),
            (clerks(), &ann, Some(no_role)),
            (clerks(), &cleo, None),
            (clerks(), &operator, None),
            (Access::SignedIn, &operator, None),
            (Access::Roles(Vec::new()), &cleo, Some("it takes one of the roles ")),
            (Access::Roles(Vec::new()), &operator, None),
        ] {
            let denied = access.check(caller).err().map(|denied| denied.to_string());
            assert_eq!(denied.as_deref(), expected, "{access:?} for {caller:?}");
        }
    }
}
