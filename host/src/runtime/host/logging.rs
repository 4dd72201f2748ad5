//! `kontor:service/logging`

use crate::runtime::bindings::logging::{Host, Level};
use crate::runtime::call::{Failed, Guest};
use crate::runtime::instance_data::service_name;

/// Maximum size of a message. Longer ones are cut: a log line is read by operators.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

impl Host for Guest<'_> {
    fn log(&mut self, level: Level, mut message: String) -> wasmtime::Result<()> {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        if let Some(identity) = self.identity
            && !identity.log_quota.take(&identity.manifest.service, message.len())
        {
            return Ok(());
        }
        let service = service_name(self.identity.map(|identity| &**identity));
        let service = service.as_str();
        let call = &*self.scope.id;
        match level {
            Level::Trace => tracing::trace!(target: "component", service, call, "{message}"),
            Level::Debug => tracing::debug!(target: "component", service, call, "{message}"),
            Level::Info => tracing::info!(target: "component", service, call, "{message}"),
            Level::Warn => tracing::warn!(target: "component", service, call, "{message}"),
            Level::Error => tracing::error!(target: "component", service, call, "{message}"),
        }
        Ok(())
    }

    fn fail(&mut self, mut message: String) -> wasmtime::Result<()> {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        Err(wasmtime::Error::new(Failed(message)))
    }
}
