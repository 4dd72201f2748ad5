//! The files and secrets that the configuration names. A host reads all of them before it does anything else,
//! so that it finds what `kontor config check` finds, in the same sentences.

use std::error::Error;

use super::{Config, ConfigError};
use crate::edge::http::PemErrors;
use crate::runtime::grant_errors;

impl Config {
    /// Fails if a file or a secret cannot be used. Names all of them, so that they can be corrected at once.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        let errors = self.file_errors();
        if errors.is_empty() { Ok(()) } else { Err(ConfigError::Files(errors)) }
    }

    /// Returns an error for each file and secret that cannot be used.
    pub fn file_errors(&self) -> Vec<ConfigError> {
        let grants = grant_errors(&self.grants).into_iter().map(ConfigError::Grants);
        let errors = self.tls_errors().into_iter().chain(self.auth_errors()).chain(grants);
        let errors = errors.chain(self.nats_errors()).map(|error| error.at(&self.places));
        errors.chain(self.service_configuration().err()).collect()
    }

    fn tls_errors(&self) -> Vec<ConfigError> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let PemErrors { certificate, key, authorities } =
            PemErrors::of(Some((&tls.certificate, &tls.key)), tls.client_ca.as_deref());
        let errors = [("tls.certificate", certificate), ("tls.key", key), ("tls.client_ca", authorities)];
        errors.into_iter().filter_map(|(key, error)| Some(unusable(key, error?))).collect()
    }

    fn auth_errors(&self) -> Vec<ConfigError> {
        let errors = self.auth.iter().flat_map(|auth| auth.file_errors());
        errors.map(|(key, error)| unusable(key, error)).collect()
    }

    fn nats_errors(&self) -> Vec<ConfigError> {
        let nats = &self.nats;
        let pair = nats.certificate.as_deref().zip(nats.key.as_deref());
        let PemErrors { certificate, key, authorities } = PemErrors::of(pair, nats.ca.as_deref());
        let errors = [("nats.ca", authorities), ("nats.certificate", certificate), ("nats.key", key)];
        let errors = errors.into_iter().filter_map(|(key, error)| Some(unusable(key, error?)));
        let credentials = nats.check_credentials().err();
        errors.chain(credentials.map(|error| unusable("nats.credentials", error))).collect()
    }
}

fn unusable(key: &'static str, error: impl Error + Send + Sync + 'static) -> ConfigError {
    ConfigError::File { key, source: Box::new(error) }
}
