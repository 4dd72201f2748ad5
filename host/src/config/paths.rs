//! The paths in the configuration file, which start at the file.

use std::path::{Path, PathBuf};

use super::Config;
use crate::contract::SecretSource;
use crate::identity::KeysPlace;

impl Config {
    /// Makes the paths that the file has named start at the directory of the file. Those of flags, of the
    /// environment and of defaults start at the working directory. `given`: the keys of the file.
    pub(super) fn start_paths_at(&mut self, directory: &Path, given: &toml::Table) {
        let own = [("data", &mut self.data), ("plugins", &mut self.plugins)];
        let own = own.into_iter().filter(|(key, _)| given.contains_key(*key)).map(|(_, path)| path);
        let nats = &mut self.nats;
        let nats =
            [&mut nats.url_file, &mut nats.ca, &mut nats.certificate, &mut nats.key, &mut nats.credentials];
        let tls = self.tls.iter_mut().flat_map(|tls| {
            [Some(&mut tls.certificate), Some(&mut tls.key), tls.client_ca.as_mut()].into_iter().flatten()
        });
        let (issuers, oidc) = match &mut self.auth {
            Some(auth) => (&mut auth.issuers[..], auth.oidc.as_mut()),
            None => (&mut [][..], None),
        };
        let keys = issuers.iter_mut().filter_map(|issuer| match &mut issuer.jwks {
            KeysPlace::File(file) => Some(file),
            KeysPlace::Url(_) => None,
        });
        let oidc = oidc.into_iter().flat_map(|oidc| [&mut oidc.client_secret, &mut oidc.session_key]);
        let headers = self.grants.values_mut().flat_map(|grants| &mut grants.http);
        let headers = headers.flat_map(|grant| grant.headers.values_mut());
        let secrets = self.secrets.values_mut().flat_map(|keys| keys.values_mut());
        let secrets = headers.chain(secrets).chain(oidc.flatten()).filter_map(|source| match source {
            SecretSource::File(file) => Some(file),
            SecretSource::Env(_) => None,
        });
        let sections = nats.into_iter().flatten().chain(tls).chain(&mut self.admin.socket).chain(keys);
        for path in own.chain(sections).chain(secrets) {
            let joined: PathBuf = directory.join(&path);
            *path = joined;
        }
    }
}
