//! The gate `signature`: a trusted key has signed the component.

use std::future::ready;

use futures::FutureExt as _;

use super::super::signature;
use super::{Check, Examination, Finding, Gate, Origin};
use crate::deployed::GateName;

pub(super) const GATE: Gate =
    Gate { name: GateName::Signature, check: Check::Upload(|examination| ready(check(examination)).boxed()) };

fn check(examination: &Examination<'_>) -> Finding {
    let trusted = examination.examiner.trusted;
    if trusted.is_empty() {
        return Finding::skipped("no keys are configured, so any component is accepted");
    }
    if examination.terms.origin == Origin::EarlierRelease {
        return Finding::skipped("the component ran before, so its signature is not checked again");
    }
    match &examination.upload.signature {
        None => Finding::refused(
            "the component is not signed, and keys are configured: sign it with `kontor sign`",
        ),
        Some(signature) if signature::verify(trusted, examination.digest, signature) => {
            Finding::passed("a trusted key has signed the component")
        }
        Some(_) => Finding::refused("no trusted key has made this signature of this component"),
    }
}
