//! What a component asks for against what it is granted: in the configuration, with this deployment, or with an earlier one.

use std::fmt;
use std::str::FromStr;

use crate::runtime::{Component, HttpClient, HttpOrigin, grant_to_add};

/// What an operator grants with a deployment: `service:payment`, `subject:orders.>`, `http:https://payments.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// To query a service.
    Service(String),
    /// To publish on and subscribe to subjects.
    Subject(String),
    /// To call an origin with any method, at public addresses and without a secret.
    Http(HttpOrigin),
}

/// Why a text is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is nothing that can be granted with a deployment: that is `service:<name>`, `subject:<subject>` or \
     `http:<origin>`, with an origin such as https://payments.example"
)]
pub struct InvalidGrant(String);

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let grant = match text.split_once(':') {
            Some(("service", name)) if !name.is_empty() => Some(Self::Service(name.to_owned())),
            Some(("subject", subject)) if !subject.is_empty() => Some(Self::Subject(subject.to_owned())),
            Some(("http", origin)) => origin.parse().ok().map(Self::Http),
            _ => None,
        };
        grant.ok_or_else(|| InvalidGrant(text.to_owned()))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Subject(subject) => write!(f, "subject:{subject}"),
            Self::Http(origin) => write!(f, "http:{origin}"),
        }
    }
}

/// All that a component asks for. A configuration key is granted by being set for the service.
pub(crate) fn asked(component: &Component) -> impl Iterator<Item = Grant> {
    asked_inside(component).chain(component.origins().iter().cloned().map(Grant::Http))
}

/// What a component asks for inside of the host.
pub(crate) fn asked_inside(component: &Component) -> impl Iterator<Item = Grant> {
    let permissions = &component.manifest().permissions;
    let services = permissions.services.iter().cloned().map(Grant::Service);
    services.chain(permissions.subjects.iter().cloned().map(Grant::Subject))
}

/// A sentence about what it may do, or about the first thing that it may not. `http`: what the configuration grants; `grants`:
/// that, and what is granted with this deployment and was with earlier ones.
pub(super) fn check(component: &Component, http: &HttpClient, grants: &[Grant]) -> Result<String, String> {
    let service = &component.manifest().service;
    let granted = |asked: &Grant| match asked {
        Grant::Http(origin) if http.is_configured(service.as_str(), origin) => true,
        Grant::Http(origin) if origin.is_private() => false,
        asked => grants.contains(asked),
    };
    if let Some(missing) = asked(component).find(|asked| !granted(asked)) {
        return Err(format!(
            "it asks for {missing}, which is not granted: {}",
            to_grant(service.as_str(), &missing)
        ));
    }
    let asked: Vec<_> = asked(component).map(|grant| grant.to_string()).collect();
    Ok(match asked.is_empty() {
        true => "it asks for nothing".to_owned(),
        false => format!("it may use {}", asked.join(", ")),
    })
}

/// What an operator does to grant what a service asks for.
fn to_grant(service: &str, missing: &Grant) -> String {
    match missing {
        Grant::Http(origin) => grant_to_add(service, origin, "…"),
        inside => {
            format!("deploy it with --grant {inside}, or add that to [grants.{service}] in kontor.toml")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_says_what_it_grants() {
        for text in ["service:payment", "subject:orders.>", "http:https://pay.example:8443"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in [
            "payment",
            "service:",
            "http:pay.example",
            "http:https://pay.example/v1",
            "https://pay.example",
            "",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }
}
