//! The gate `configuration`: the component asks for everything that is configured for its service, and has
//! the sagas whose retries are.

use std::collections::BTreeMap;
use std::future::ready;

use futures::FutureExt as _;

use super::{Check, Examination, Finding, Gate};
use crate::contract::{self, Findings, settings};
use crate::deployed::GateName;
use crate::runtime::Component;

pub(super) const GATE: Gate = Gate {
    name: GateName::Configuration,
    check: Check::Component(|examination, component| ready(check(examination, component)).boxed()),
};

fn check(examination: &Examination<'_>, component: &Component) -> Finding {
    let (examiner, manifest) = (examination.examiner, component.manifest());
    let service = manifest.service.as_str();
    let (values, none) = (examiner.runtime.configuration().get(service), BTreeMap::new());
    let mut findings = settings::check(service, &manifest.settings, values.unwrap_or(&none));
    findings.extend(retried(examination, component));
    let Findings { errors, warnings } = findings;
    let located = |findings: Vec<contract::Finding>| {
        findings.iter().map(|finding| examiner.rules.places.locate(finding)).collect()
    };
    match (errors.is_empty(), warnings.is_empty()) {
        (false, _) => {
            Finding::refused("the configuration of the host does not fit the component: correct it")
                .with(located(errors))
        }
        (true, false) => Finding::passed("the component does not have everything that is configured for it")
            .with(located(warnings)),
        (true, true) if values.is_none() => Finding::skipped("nothing is configured for the service"),
        (true, true) => Finding::passed("the component asks for everything that is configured for it"),
    }
}

/// Compares the sagas whose retries are configured with those that there would be. A saga that is far from
/// all of them counts if the running version has it.
fn retried(examination: &Examination<'_>, component: &Component) -> Findings {
    let Examination { examiner, running, .. } = examination;
    if examiner.sagas.is_none() {
        // The host starts: it compares the sagas of all services at once.
        return Findings::default();
    }
    let service = &component.manifest().service;
    let others = running.services().filter(|other| other.manifest().service != *service);
    let known: Vec<&str> = others.chain([component]).flat_map(sagas).collect();
    let steps = examiner.rules.retried.iter().map(String::as_str);
    let mut findings = settings::check_retried(steps, &known);
    let before: Vec<&str> = examination.before(component).into_iter().flat_map(sagas).collect();
    findings.warnings.retain(|finding| {
        let step = finding.key.last().map_or("", String::as_str);
        settings::check_retried([step].into_iter(), &before) == Findings::default()
    });
    findings
}

fn sagas(component: &Component) -> impl Iterator<Item = &str> {
    component.manifest().sagas.iter().map(|saga| saga.name.as_str())
}
