//! Signed deployments: a statement says which component may be deployed as which version of which service,
//! with which permissions, and until when. It is signed as a DSSE envelope.

mod envelope;
mod history;
mod keys;
mod statement;

use crate::contract::Manifest;
use crate::model::Digest;

pub use envelope::Envelope;
pub(super) use history::highest;
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
