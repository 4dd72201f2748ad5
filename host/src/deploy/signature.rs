//! stub
use crate::model::Digest;

#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct PublicKey([u8; 32]);

pub(super) fn verify(_trusted: &[PublicKey], _digest: Digest, _signature: &[u8]) -> bool {
    false
}
