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
    if let Some(missing) = requests(component).find(|request| !granted(request)) {
        let to_do = to_grant(service.as_str(), &missing);
        return Finding::refused(format!("the component requests {missing}, which is not granted: {to_do}"));
    }
    let granted: Vec<_> = requests(component).map(|grant| grant.to_string()).collect();
    Finding::passed(match granted.is_empty() {
        true => "the component requests no permissions".to_owned(),
        false => format!("the component may use {}", granted.join(", ")),
    })
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
