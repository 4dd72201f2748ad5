//! The gate `configuration`: the component asks for everything that is configured for its service.

use std::future::ready;

use futures::FutureExt as _;

use super::{Check, Examination, Finding, Gate};
use crate::contract::{Findings, settings};
use crate::deployed::GateName;
use crate::runtime::Component;

pub(super) const GATE: Gate = Gate {
    name: GateName::Configuration,
    check: Check::Component(|examination, component| ready(check(examination, component)).boxed()),
};

fn check(examination: &Examination<'_>, component: &Component) -> Finding {
    let manifest = component.manifest();
    let service = manifest.service.as_str();
    let Some(values) = examination.examiner.runtime.configuration().get(service) else {
        return Finding::skipped("nothing is configured for the service");
    };
    let Findings { errors, warnings } = settings::check(service, &manifest.settings, values);
    match (errors.is_empty(), warnings.is_empty()) {
        (false, _) => {
            Finding::refused("the configuration of the host does not fit the component: correct it")
                .with(errors)
        }
        (true, true) => Finding::passed("the component asks for everything that is configured for it"),
        (true, false) => {
            Finding::passed("the component does not ask for everything that is configured for it")
                .with(warnings)
        }
    }
}
