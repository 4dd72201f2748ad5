//! What a component asks for against what it is granted: in the configuration, with this deployment, or with an earlier one.

use crate::contract::Grant;
use crate::runtime::{Component, HttpClient, grant_to_add};

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
