//! The paths in the configuration file, which start at the file.

use std::path::{Path, PathBuf};

use super::Config;
use crate::contract::SecretSource;

impl Config {
    /// Makes the paths that the file has named start at the directory of the file. Those of flags, of the
    /// environment and of defaults start at the working directory. `given`: the keys of the file.
    pub(super) fn start_paths_at(&mut self, directory: &Path, given: &toml::Table) {
        let own = [("data", &mut self.data), ("plugins", &mut self.plugins)];
        let own = own.into_iter().filter(|(key, _)| given.contains_key(*key)).map(|(_, path)| path);
        let nats = &mut self.nats;
        let nats = [&mut nats.ca, &mut nats.certificate, &mut nats.key, &mut nats.credentials];
        let headers = self.grants.values_mut().flat_map(|grants| &mut grants.http);
        let headers = headers.flat_map(|grant| grant.headers.values_mut());
        let secrets = self.secrets.values_mut().flat_map(|keys| keys.values_mut());
        let secrets = headers.chain(secrets).filter_map(|source| match source {
            SecretSource::File(file) => Some(file),
            SecretSource::Env(_) => None,
        });
        for path in own.chain(nats.into_iter().flatten()).chain(secrets) {
            let joined: PathBuf = directory.join(&path);
            *path = joined;
        }
    }
}
