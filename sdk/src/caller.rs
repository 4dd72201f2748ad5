//! Callers: who sends a command or asks a query.

use crate::Rejection;
use crate::bindings::kontor::service::types;

/// The role that stands for every role.
const OPERATOR: &str = "operator";

/// The sender of a command or a query, as the host has authenticated it.
///
/// A command finds its caller in the [`Context`](crate::Context), a query asks for it with
/// [`caller`](crate::caller()). The access of a [`Target`](crate::Target) says who may use a route; a rule
/// about one aggregate is a line in its code:
///
/// ```
/// use kontor_sdk::prelude::*;
///
/// fn may_change(order: &str, owner: &str, caller: &Caller) -> Result<(), Error> {
///     caller.must_be_or_have(owner, "clerk")?;
///     Ok(())
/// }
/// ```
///
/// A saga acts for the caller that started it: its commands have that subject and those roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user or program that signed in: `None` if nobody has signed in.
    pub subject: Option<String>,
    /// The roles of the subject.
    pub roles: Vec<String>,
    /// The user for whom the subject says it acts. The host records it and does not check it.
    pub on_behalf_of: Option<String>,
    /// The saga that acts for the subject, or the subscription whose message the subject sent: `saga:0199…`,
    /// `message:carrier.delivered`. `None` if the subject acts itself.
    pub via: Option<String>,
}

impl Caller {
    /// Returns if the caller has a role. An operator has every role.
    pub fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held == role || held == OPERATOR)
    }

    /// Returns if the caller is this subject, or an operator, who may do everything.
    pub fn is(&self, subject: &str) -> bool {
        self.subject.as_deref() == Some(subject) || self.has(OPERATOR)
    }

    /// Rejects callers without a role: `forbidden`.
    pub fn must_have(&self, role: &str) -> Result<(), Rejection> {
        allow(self.has(role), || format!("It takes the role {role}."))
    }

    /// Rejects every other subject: `forbidden`.
    pub fn must_be(&self, subject: &str) -> Result<(), Rejection> {
        allow(self.is(subject), || "It belongs to somebody else.".to_owned())
    }

    /// Rejects callers that neither are this subject nor have the role: `forbidden`.
    pub fn must_be_or_have(&self, subject: &str, role: &str) -> Result<(), Rejection> {
        allow(self.is(subject) || self.has(role), || {
            format!("It belongs to somebody else; it takes the role {role}.")
        })
    }
}

fn allow(allowed: bool, message: impl FnOnce() -> String) -> Result<(), Rejection> {
    if allowed { Ok(()) } else { Err(Rejection::new("forbidden", message())) }
}

impl From<types::Caller> for Caller {
    fn from(caller: types::Caller) -> Self {
        let types::Caller { subject, roles, on_behalf_of, via } = caller;
        Self { subject, roles, on_behalf_of, via }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_do_what_is_its_own_and_what_its_roles_allow() {
        let caller = |subject: &str, roles: &[&str]| Caller {
            subject: Some(subject.to_owned()).filter(|subject| !subject.is_empty()),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Caller::default()
        };
        for (caller, is_ann, is_clerk) in [
            (caller("", &[]), false, false),
            (caller("ann", &[]), true, false),
            (caller("bob", &["customer"]), false, false),
            (caller("cleo", &["clerk"]), false, true),
            (caller("", &["operator"]), true, true),
        ] {
            assert_eq!(caller.must_be("ann").is_ok(), is_ann, "{caller:?}");
            assert_eq!(caller.must_have("clerk").is_ok(), is_clerk, "{caller:?}");
            assert_eq!(caller.must_be_or_have("ann", "clerk").is_ok(), is_ann || is_clerk, "{caller:?}");
        }
        let rejection = caller("bob", &[]).must_have("clerk").unwrap_err();
        assert_eq!(rejection.to_string(), "forbidden: It takes the role clerk.");
    }
}
