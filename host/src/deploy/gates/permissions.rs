//! What a component asks for against what it is granted: in the configuration, with this deployment, or with an earlier one.

use std::fmt;
use std::str::FromStr;

use crate::runtime::{Component, HttpClient};

/// What an operator grants with a deployment: `service:payment`, `subject:orders.>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// To query a service.
    Service(String),
    /// To publish on and subscribe to subjects.
    Subject(String),
}

/// Why a text is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is nothing that can be granted with a deployment: that is `service:<name>` or `subject:<subject>`; HTTP is \
     granted in kontor.toml, where its secrets are"
)]
pub struct InvalidGrant(String);

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        match text.split_once(':') {
            Some(("service", name)) if !name.is_empty() => Ok(Self::Service(name.to_owned())),
            Some(("subject", subject)) if !subject.is_empty() => Ok(Self::Subject(subject.to_owned())),
            _ => Err(InvalidGrant(text.to_owned())),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Subject(subject) => write!(f, "subject:{subject}"),
        }
    }
}

/// All that a component asks for inside of the host. A configuration key is granted by being set for the service.
pub(crate) fn asked(component: &Component) -> impl Iterator<Item = Grant> {
    let permissions = &component.manifest().permissions;
    let services = permissions.services.iter().cloned().map(Grant::Service);
    services.chain(permissions.subjects.iter().cloned().map(Grant::Subject))
}

/// A sentence about what it may do, or about the first thing that it may not. `grants`: of this deployment and earlier ones.
pub(super) fn check(component: &Component, http: &HttpClient, grants: &[Grant]) -> Result<String, String> {
    let service = &component.manifest().service;
    http.check(service, component.origins()).map_err(|sentence| format!("it asks for {sentence}"))?;
    if let Some(missing) = asked(component).find(|asked| !grants.contains(asked)) {
        return Err(format!(
            "it asks for {missing}, which is not granted: deploy it with --grant {missing}, or add that to \
             [grants.{service}] in kontor.toml"
        ));
    }
    let asked: Vec<_> = asked(component).map(|grant| grant.to_string()).collect();
    Ok(match asked.is_empty() && component.origins().is_empty() {
        true => "it asks for nothing".to_owned(),
        false => {
            let origins = component.origins().iter().map(|origin| format!("http:{origin}"));
            format!("it may use {}", asked.into_iter().chain(origins).collect::<Vec<_>>().join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_says_what_it_grants() {
        for text in ["service:payment", "subject:orders.>"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in ["payment", "service:", "http:https://pay.example", ""] {
            assert!(text.parse::<Grant>().unwrap_err().to_string().contains("kontor.toml"), "{text}");
        }
    }
}
