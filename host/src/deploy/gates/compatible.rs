//! The gate `compatible`: the component keeps everything that clients of the running version rely on.

use std::future::ready;

use futures::FutureExt as _;

use super::breaks::{Break, breaks};
use super::{Check, Examination, Finding, Gate, Origin};
use crate::deployed::GateName;
use crate::runtime::Component;

pub(super) const GATE: Gate = Gate {
    name: GateName::Compatible,
    check: Check::Component(|examination, component| ready(check(examination, component)).boxed()),
};

fn check(examination: &Examination<'_>, component: &Component) -> Finding {
    let Some(before) = examination.before(component) else {
        return Finding::skipped("the service does not run yet");
    };
    if examination.terms.origin == Origin::EarlierRelease {
        return Finding::skipped("the component ran before, so it may remove what came after it");
    }
    let allowed = |found: &Break| examination.terms.allow_breaking.contains(&found.name);
    let (allowed, refused): (Vec<_>, Vec<_>) =
        breaks(before.manifest(), component.manifest()).into_iter().partition(allowed);
    let sentence = |found: &Break| format!("{}: {}", found.name, found.why);
    match (refused.first(), allowed.is_empty()) {
        (None, true) => Finding::passed("the component has everything that the running version has"),
        (None, false) => Finding::passed("the component breaks only what --allow-breaking names")
            .with(allowed.iter().map(sentence).collect()),
        (Some(first), _) => Finding::refused(format!(
            "the component breaks what the running version promises: restore it, or name it with \
             --allow-breaking {:?}",
            first.name
        ))
        .with(refused.iter().map(sentence).collect()),
    }
}
