//! `kontor:service/config`

use crate::runtime::bindings::config::Host;
use crate::runtime::guest::{InstanceData, forbidden};

impl Host for InstanceData {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        let Some(identity) = &self.identity else {
            return Err(forbidden("config.get", self.operation()));
        };
        if !identity.manifest.permissions.config.contains(&key) {
            let error = format!("config.get: the manifest does not ask for the key {key:?}");
            return Err(wasmtime::Error::msg(error));
        }
        Ok(identity.config.get(&key).map(|value| value.as_str().to_owned()))
    }
}
