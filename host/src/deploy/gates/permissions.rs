//! The gate `permissions`: the component requests only what is granted: in the configuration, with this
//! deployment, or with an earlier one.

use std::future::ready;

use futures::FutureExt as _;

use super::{Check, Examination, Finding, Gate};
use crate::contract::Grant;
use crate::deployed::GateName;
use crate::runtime::{Component, grant_to_add};

pub(super) const GATE: Gate = Gate {
    name: GateName::Permissions,
    check: Check::Component(|examination, component| ready(check(examination, component)).boxed()),
};

/// Returns everything that a component requests. A configuration key is granted by being set for the service.
pub(crate) fn requests(component: &Component) -> impl Iterator<Item = Grant> {
    let http = component.origins().iter().cloned().map(Grant::Http);
    component.manifest().permissions.internal().chain(http)
}

fn check(examination: &Examination<'_>, component: &Component) -> Finding {
    let service = &component.manifest().service;
    let (http, grants) = (examination.examiner.http, (examination.examiner.granted)(component));
    let granted = |request: &Grant| match request {
        Grant::Http(origin) if http.is_configured(service.as_str(), origin) => true,
        Grant::Http(origin) if origin.is_private() => false,
        request => grants.contains(request),
    };
    let missing: Vec<_> = requests(component).filter(|request| !granted(request)).collect();
    if !missing.is_empty() {
        return not_granted(service.as_str(), &missing);
    }
    let granted: Vec<_> = requests(component).map(|grant| grant.to_string()).collect();
    Finding::passed(match granted.is_empty() {
        true => "the component requests no permissions".to_owned(),
        false => format!("the component may use {}", granted.join(", ")),
    })
}

/// Returns the refusal of a service that requests what is not granted. It names everything at once, so that
/// the next attempt passes.
fn not_granted(service: &str, missing: &[Grant]) -> Finding {
    if let [missing] = missing {
        let to_do = to_grant(service, missing);
        return Finding::refused(format!("the component requests {missing}, which is not granted: {to_do}"));
    }
    let with_deployment = |grant: &&Grant| match grant {
        Grant::Http(origin) => !origin.is_private(),
        _ => true,
    };
    let flags: Vec<_> =
        missing.iter().filter(with_deployment).map(|missing| format!("--grant {missing}")).collect();
    let (number, section, with) =
        (missing.len(), format!("[grants.{service}] in kontor.toml"), flags.join(" "));
    let to_do = match flags.len() {
        0 => format!("add them to {section}"),
        flags if flags == number => format!("deploy it with {with}, or add them to {section}"),
        _ => format!("deploy it with {with} and add the others to {section}, or add all of them there"),
    };
    let finding = |missing: &Grant| format!("{missing}: {}", to_grant(service, missing));
    Finding::refused(format!("the component requests {number} permissions that are not granted: {to_do}"))
        .with(missing.iter().map(finding).collect())
}

/// Returns the operator's steps to grant a request of a service.
fn to_grant(service: &str, missing: &Grant) -> String {
    match missing {
        Grant::Http(origin) => grant_to_add(service, origin, "…"),
        internal => {
            format!("deploy it with --grant {internal}, or add that to [grants.{service}] in kontor.toml")
        }
    }
}
