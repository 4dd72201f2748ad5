//! `kontor:service/config`

use crate::runtime::bindings::config::Host;
use crate::runtime::call::{Denied, Guest};

impl Host for Guest<'_> {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        let identity = self.identity("config.get")?;
        if !identity.manifest.settings.iter().any(|setting| setting.key == key) {
            return Err(Denied::Key(key).into());
        }
        Ok(identity.config.get(&key).map(|value| value.as_str().to_owned()))
    }
}
