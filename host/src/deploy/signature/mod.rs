//! Signed deployments: a statement says which component may be deployed as which version of which service,
//! with which permissions, and until when. It is signed as a DSSE envelope.

mod envelope;
mod history;
mod keys;
mod statement;

use crate::contract::Manifest;
use crate::error::Chain;
use crate::model::Digest;
use crate::runtime::Component;

pub use envelope::Envelope;
pub(crate) use history::trust;
pub(super) use history::{check_earlier, highest};
pub use keys::{KeyError, PublicKey, SigningKey, new_key};
pub use statement::{SignatureError, Statement};

/// Returns the envelope about a component, and the statement that a trusted key has signed in it. It may have
/// expired. `manifest`: none if it cannot be read.
pub(super) fn signed(
    signature: Option<&[u8]>,
    trusted: &[PublicKey],
    digest: Digest,
    manifest: Option<&Manifest>,
) -> Result<(Envelope, Statement), SignatureError> {
    let envelope = Envelope::read(signature.ok_or(SignatureError::Unsigned)?)?;
    let statement = envelope.open(trusted)?;
    statement.fits(digest, manifest)?;
    Ok((envelope, statement))
}

/// Returns the envelope about a component that the log names. Fails if no trusted key has signed it. One
/// whose statement has expired runs on: a restart must not end what was running.
pub(super) fn check_running(
    envelope: Option<&[u8]>,
    trusted: &[PublicKey],
    component: &Component,
    now_ms: u64,
) -> Result<Envelope, SignatureError> {
    let (digest, manifest) = (component.digest(), Some(&**component.manifest()));
    let (envelope, statement) = signed(envelope, trusted, digest, manifest)?;
    if let Err(expired) = statement.is_valid_at(now_ms) {
        tracing::warn!(
            service = %statement.service,
            error = %Chain(&expired),
            "a statement has expired; its service runs on, but cannot be deployed or rolled back to"
        );
    }
    Ok(envelope)
}
