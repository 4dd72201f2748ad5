//! The gate `signature`: a trusted key has signed a statement that the component may be deployed.

use futures::FutureExt as _;

use super::super::signature::{SignatureError, Statement, highest, signed};
use super::{Check, Examination, Finding, Gate, Origin};
use crate::deployed::GateName;

pub(super) const GATE: Gate =
    Gate { name: GateName::Signature, check: Check::Upload(|examination| check(examination).boxed()) };

async fn check(examination: &Examination<'_>) -> Finding {
    if examination.examiner.rules.trusted.is_empty() {
        return Finding::skipped("no keys are configured, so any component is accepted");
    }
    match statement(examination).await {
        Ok(Statement { service, version, expires, .. }) => {
            let until = String::from(expires);
            Finding::passed(format!("a trusted key has signed {service} {version}, until {until}"))
        }
        Err(error) => Finding::refused(error.to_string()),
    }
}

/// Returns the statement that lets the component through.
async fn statement(examination: &Examination<'_>) -> Result<Statement, SignatureError> {
    let Examination { examiner, terms, .. } = examination;
    let manifest = examination.component.as_ref().map(|component| &**component.manifest());
    let signature = examination.upload.signature.as_deref();
    let (_, statement) = signed(signature, &examiner.rules.trusted, examination.digest, manifest)?;
    statement.is_valid_at(examiner.now_ms)?;
    // A release of the history is older by intent.
    if terms.origin == Origin::Upload {
        let highest = highest(&**examiner.log, &statement.service, &examiner.rules.trusted).await?;
        statement.is_not_older(highest, terms.allow_breaking)?;
    }
    Ok(statement)
}
