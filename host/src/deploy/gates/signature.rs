//! The gate `signature`: a trusted key has signed a statement that the component may be deployed.

use futures::FutureExt as _;

use super::super::signature::{Envelope, SignatureError, Statement, highest};
use super::{Check, Examination, Finding, Gate, Origin};
use crate::deployed::{GateName, HistoryError};
use crate::error::Chain;
use crate::runtime::Component;

pub(super) const GATE: Gate =
    Gate { name: GateName::Signature, check: Check::Upload(|examination| check(examination).boxed()) };

async fn check(examination: &Examination<'_>) -> Finding {
    if examination.examiner.trusted.is_empty() {
        return Finding::skipped("no keys are configured, so any component is accepted");
    }
    let statement = match statement(examination) {
        Ok(statement) => statement,
        Err(error) => return Finding::refused(error.to_string()),
    };
    // A release of the history is older by intent.
    if examination.terms.origin == Origin::Upload {
        match not_older(examination, &statement).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Finding::refused(error.to_string()),
            Err(error) => {
                return Finding::refused(format!("the history cannot be read: {}", Chain(&error)));
            }
        }
    }
    let Statement { service, version, expires, .. } = statement;
    Finding::passed(format!("a trusted key has signed {service} {version}, until {}", String::from(expires)))
}

/// Returns the statement about the component.
fn statement(examination: &Examination<'_>) -> Result<Statement, SignatureError> {
    let bytes = examination.upload.signature.as_ref().ok_or(SignatureError::Unsigned)?;
    let statement = Envelope::read(bytes)?.open(examination.examiner.trusted)?;
    let manifest = examination.component.as_ref().map(Component::manifest);
    statement.fits(examination.digest, manifest.map(|manifest| &**manifest))?;
    statement.is_valid_at(examination.examiner.now_ms)?;
    Ok(statement)
}

async fn not_older(
    examination: &Examination<'_>,
    statement: &Statement,
) -> Result<Result<(), SignatureError>, HistoryError> {
    let examiner = examination.examiner;
    let highest = highest(&**examiner.log, &statement.service, examiner.trusted).await?;
    Ok(statement.is_not_older(highest, examination.terms.allow_breaking))
}
