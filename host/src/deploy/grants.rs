//! The grants of a deployment.

use std::collections::HashMap;

use super::gates::requests;
use crate::contract::Grant;
use crate::deployed::{Deployments, Release};
use crate::model::Rejection;
use crate::runtime::Component;

/// Reads grants as an operator writes them: `service:payment`.
pub(super) fn parse(grants: &[String]) -> Result<Vec<Grant>, Rejection> {
    let parsed = grants.iter().map(|grant| grant.parse::<Grant>());
    parsed.collect::<Result<_, _>>().map_err(|error| Rejection::new("invalid-grant", format!("{error}.")))
}

/// Returns the grants of services with this deployment, and with the one that runs. The configuration's
/// grants are left out, so that they end with the configuration.
pub(super) fn granted(
    deployments: &Deployments,
    given: Vec<Grant>,
    from_directory: bool,
) -> impl Fn(&Component) -> Vec<Grant> + use<> {
    let earlier = deployments.running.iter();
    let earlier: HashMap<_, Vec<_>> =
        earlier.map(|(service, running)| (service.clone(), running.release.granted().collect())).collect();
    move |component| {
        let earlier = earlier.get(&component.manifest().service).into_iter().flatten();
        let internal = component.manifest().permissions.internal().filter(|_| from_directory);
        earlier.chain(&given).cloned().chain(internal).collect()
    }
}

/// Returns the release of a component, with those of its requests that are granted.
pub(super) fn release(component: &Component, granted: &[Grant]) -> Release {
    let grants = requests(component).filter(|request| granted.contains(request));
    Release::of(component, grants.map(|grant| grant.to_string()).collect())
}
