//! The answer to "who is it?": from what came with a request to its [`Caller`].

mod error;
mod options;

use crate::model::Caller;

pub use self::error::NotIdentified;
pub use self::options::AuthOptions;

/// The things that came with one request and may identify its caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'r> {
    /// The header `Authorization`.
    pub authorization: Option<&'r str>,
    /// The other end of the connection.
    pub peer: Option<&'r Peer>,
}

/// The other end of a connection, as far as the connection proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client with a certificate that the host has verified.
    Certificate {
        /// The subject of the certificate.
        subject: String,
    },
    /// A program on this machine, at the host's Unix socket.
    Socket {
        /// The id of the program's user.
        uid: u32,
    },
    /// A client of the NATS servers, whose account may use the host's subjects.
    Nats,
}

/// Identifies callers.
pub struct Identity {
    /// None: requests are not authenticated.
    auth: Option<AuthOptions>,
}

impl Identity {
    /// Returns an identity by the section `[auth]` of the configuration.
    pub fn new(auth: Option<AuthOptions>) -> Self {
        Self { auth }
    }

    /// Returns the caller of a request. Without `[auth]` each is the operator. With it, a request without
    /// evidence is nobody's, and evidence that is not valid is an error.
    pub async fn caller(&self, evidence: Evidence<'_>) -> Result<Caller, NotIdentified> {
        match (&self.auth, evidence.authorization) {
            (None, _) => Ok(Caller::unauthenticated_operator()),
            (Some(_), Some(_)) => Err(NotIdentified::NoToken),
            (Some(_), None) => Ok(Caller::default()),
        }
    }
}
