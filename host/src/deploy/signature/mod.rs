//! Signed deployments: a statement says which component may be deployed as which version of which service,
//! with which permissions, and until when. It is signed as a DSSE envelope.

mod envelope;
mod history;
mod keys;
mod statement;

pub use envelope::{Envelope, PAYLOAD_TYPE};
pub(super) use history::highest;
pub use keys::{KeyError, PublicKey, SigningKey, new_key};
pub use statement::{SignatureError, Statement};
