//! `kontor:service/logging`

use crate::runtime::bindings::logging::{Host, Level};
use crate::runtime::guest::InstanceData;

/// Longer messages are cut: a log line is for people.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

impl Host for InstanceData {
    fn log(&mut self, level: Level, mut message: String) -> wasmtime::Result<()> {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        let service = self.service();
        let service = service.as_str();
        let call = self.scope.as_ref().map_or("", |scope| &scope.id);
        match level {
            Level::Trace => tracing::trace!(target: "component", service, call, "{message}"),
            Level::Debug => tracing::debug!(target: "component", service, call, "{message}"),
            Level::Info => tracing::info!(target: "component", service, call, "{message}"),
            Level::Warn => tracing::warn!(target: "component", service, call, "{message}"),
            Level::Error => tracing::error!(target: "component", service, call, "{message}"),
        }
        Ok(())
    }
}
