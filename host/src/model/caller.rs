//! The callers of commands and queries.

use std::sync::{Arc, LazyLock};

use super::{Actor, Role};

/// The name of a caller that has not signed in, where a name must be shown.
pub const ANONYMOUS: &str = "anonymous";

/// The beginning of the name of a saga that acts, which its id follows.
pub const BY_SAGA: &str = "saga:";

/// The role of those who may do everything.
pub const OPERATOR: &str = "operator";
/// The role of those who may deploy, roll back and undeploy.
pub const DEPLOYER: &str = "deployer";
/// The role of those who may read everything that the log has.
pub const AUDITOR: &str = "auditor";
/// The role of those who may read the state of the host: its metrics, its members, its plugins.
pub const MONITOR: &str = "monitor";

/// The sender of a command or a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user or program that signed in, or the part of the host that acts. `None`: nobody has signed in.
    pub subject: Option<Actor>,
    /// The roles of the subject.
    pub roles: Arc<[Role]>,
    /// The user for whom the subject says it acts. It is recorded, and gives no rights.
    pub on_behalf_of: Option<Actor>,
    /// The saga that acts for the subject, which is the caller that started it, or the subscription whose
    /// message the subject sent: `saga:0199…`, `message:carrier.delivered`. `None`: the subject acts itself.
    pub via: Option<Actor>,
}

impl Caller {
    /// Returns a caller with a name and no roles.
    pub fn named(subject: impl Into<Actor>) -> Self {
        Self { subject: Some(subject.into()), ..Self::default() }
    }

    /// Returns the caller of every request on a host without `[auth]`: nobody in particular, who may do
    /// everything.
    pub fn unauthenticated_operator() -> Self {
        static ROLES: LazyLock<Arc<[Role]>> = LazyLock::new(|| [Role::from(OPERATOR)].into());
        Self { roles: ROLES.clone(), ..Self::default() }
    }

    /// Returns if the caller has a role. An operator has every role.
    pub fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held.as_str() == role || held.as_str() == OPERATOR)
    }

    /// Returns if the caller has one of these roles.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.has(role.as_str()))
    }

    /// Returns the name of the subject for the record.
    pub fn actor(&self) -> Actor {
        static NOBODY: LazyLock<Actor> = LazyLock::new(|| ANONYMOUS.into());
        self.subject.clone().unwrap_or_else(|| NOBODY.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_has_every_role() {
        let clerk = Caller { roles: ["clerk".into()].into(), ..Caller::named("cleo") };
        assert!(clerk.has("clerk") && !clerk.has(AUDITOR) && !clerk.has(OPERATOR));
        assert!(Caller::unauthenticated_operator().has("clerk"));
        assert!(!Caller::named(OPERATOR).has("clerk"), "a name is no role");
    }

    #[test]
    fn nobody_is_shown_as_anonymous() {
        assert_eq!(Caller::default().actor(), "anonymous");
        assert_eq!(Caller::named("ann").actor(), "ann");
    }
}
