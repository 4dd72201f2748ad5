//! The gate `component`: the file is a component that imports and exports what the contract defines.

use futures::FutureExt as _;

use super::{Check, Examination, Finding, Gate};
use crate::deployed::GateName;
use crate::error::with_causes;

pub(super) const GATE: Gate =
    Gate { name: GateName::Component, check: Check::Upload(|examination| check(examination).boxed()) };

async fn check(examination: &mut Examination<'_>) -> Finding {
    let wasm = &examination.upload.wasm;
    match examination.examiner.runtime.compile(wasm.clone()).await {
        Ok(compiled) => {
            examination.compiled = Some(compiled);
            let kib = wasm.len() / 1024;
            Finding::passed(format!(
                "the component ({kib} KiB) imports and exports what the contract defines"
            ))
        }
        Err(error) => Finding::refused(with_causes(&error)),
    }
}
