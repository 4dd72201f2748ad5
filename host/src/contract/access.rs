//! The access of routes: the callers that may use one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Readers;
use crate::model::{Actor, Caller, Json, OPERATOR, Rejection, Role};

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
            Self::Roles(roles) => match caller.has_any(roles) {
                true => Ok(()),
                false => Err(Denied::NoRole(roles.clone())),
            },
        }
    }

    /// Returns whether each caller that may use a route with this access may use one with the `other`, too.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Anyone) => true,
            (Self::Anyone, _) => false,
            (_, Self::SignedIn) => true,
            (Self::SignedIn, Self::Roles(_)) => false,
            (Self::Roles(roles), Self::Roles(others)) => roles.iter().all(|role| others.contains(role)),
        }
    }
}

/// The code of the rejection of a caller that may not do something.
const FORBIDDEN: &str = "forbidden";

impl Readers {
    /// Returns whether each caller that may see a view by `these` may see it by `others`, too. By `None`
    /// everybody may.
    pub(crate) fn are_within(these: Option<&Self>, others: Option<&Self>) -> bool {
        let Some(others) = others else { return true };
        these.is_some_and(|these| {
            these.owner == others.owner && these.roles.iter().all(|role| others.roles.contains(role))
        })
    }

    /// Rejects a caller that may not see a view.
    pub(crate) fn check(&self, caller: &Caller, view: &Json) -> Result<(), Rejection> {
        let owns = |subject: &Actor| {
            let members: BTreeMap<String, Json> = view.read().unwrap_or_default();
            let owner = members.get(&self.owner).and_then(|owner| owner.read::<String>().ok());
            owner.is_some_and(|owner| *subject == *owner)
        };
        let may = caller.has(OPERATOR) || caller.has_any(&self.roles);
        match may || caller.subject.as_ref().is_some_and(owns) {
            true => Ok(()),
            false => Err(Rejection::new(FORBIDDEN, "It belongs to somebody else.")),
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
    fn a_view_is_for_its_owner_and_for_the_roles_of_its_readers() {
        let readers = Readers { owner: "user_id".to_owned(), roles: vec!["clerk".into()] };
        let view = Json::parse(r#"{"id": "o1", "user_id": "ann"}"#.to_owned()).unwrap();
        let cleo = Caller { roles: ["clerk".into()].into(), ..Caller::named("cleo") };
        for (caller, may) in [
            (Caller::named("ann"), true),
            (Caller::named("bob"), false),
            (Caller::default(), false),
            (cleo, true),
            (Caller::unauthenticated_operator(), true),
        ] {
            assert_eq!(readers.check(&caller, &view).is_ok(), may, "{caller:?}");
        }
        let other = Json::parse("[]".to_owned()).unwrap();
        assert!(readers.check(&Caller::named("ann"), &other).is_err(), "a view without an owner");
    }

    #[test]
    fn an_access_is_within_another_one_if_it_lets_in_nobody_else() {
        let roles = |names: &[&str]| Access::Roles(names.iter().map(|name| Role::from(*name)).collect());
        let narrowing =
            [roles(&[]), roles(&["clerk"]), roles(&["auditor", "clerk"]), Access::SignedIn, Access::Anyone];
        for (at, access) in narrowing.iter().enumerate() {
            for (other_at, other) in narrowing.iter().enumerate() {
                assert_eq!(access.is_within(other), at <= other_at, "{access:?} within {other:?}");
            }
        }
        assert!(!roles(&["clerk"]).is_within(&roles(&["auditor"])));
    }

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
