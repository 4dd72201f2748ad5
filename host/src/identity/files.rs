//! The files and secrets that the section `[auth]` names, checked before a host starts.

use std::path::PathBuf;

use super::keys::{self, KeysError};
use super::options::{AuthOptions, KeysPlace};
use crate::contract::SecretError;

/// A file or a secret that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// The keys of an issuer.
    #[error("{} does not have the keys of {issuer}", .file.display())]
    Keys {
        /// The issuer.
        issuer: String,
        /// The file.
        file: PathBuf,
        /// The cause.
        source: KeysError,
    },
    /// A secret of the sign-in.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl AuthOptions {
    /// Returns an error for each file and secret that cannot be used, with the key that names it.
    pub(crate) fn file_errors(&self) -> Vec<(&'static str, AuthFileError)> {
        let keys = self.issuers.iter().filter_map(|issuer| match &issuer.jwks {
            KeysPlace::Url(_) => None,
            KeysPlace::File(file) => {
                let source = keys::check(file).err()?;
                let (issuer, file) = (issuer.issuer.clone(), file.clone());
                Some(("auth.issuers", AuthFileError::Keys { issuer, file, source }))
            }
        });
        let secrets = self.oidc.iter().flat_map(|oidc| {
            [("auth.oidc.client_secret", &oidc.client_secret), ("auth.oidc.session_key", &oidc.session_key)]
        });
        let secrets = secrets.filter_map(|(key, secret)| Some((key, secret.as_ref()?.read().err()?.into())));
        keys.chain(secrets).collect()
    }
}
