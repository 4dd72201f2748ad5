//! The gate `manifest`: the component describes itself, and its manifest is sound.

use futures::FutureExt as _;

use super::{Check, Examination, Finding, Gate};
use crate::deployed::GateName;
use crate::error::with_causes;
use crate::runtime::Compiled;

pub(super) const GATE: Gate = Gate {
    name: GateName::Manifest,
    check: Check::Compiled(|examination, compiled| check(examination, compiled).boxed()),
};

async fn check(examination: &mut Examination<'_>, compiled: Compiled) -> Finding {
    match examination.examiner.runtime.describe_and_load(compiled).await {
        Ok(component) => {
            let manifest = component.manifest();
            let says = format!("the manifest describes {} {}", manifest.service, manifest.version);
            examination.component = Some(component);
            Finding::passed(says)
        }
        Err(error) => Finding::refused(with_causes(&error)),
    }
}
