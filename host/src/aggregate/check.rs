//! The check of payloads, on their way from any sender to a component.

use super::error::CommandError;
use crate::model::{Command, Intent};
use crate::runtime::Component;

/// Checks the payload of a command against its schema, and writes its integers as such. An undo has none.
pub(super) fn check_payload(component: &Component, command: &mut Command) -> Result<(), CommandError> {
    let Command { stream, name, payload, intent: Intent::Decide, .. } = command else { return Ok(()) };
    let rewritten = component.schemas().check_payload(stream.aggregate(), name.as_str(), payload);
    if let Some(rewritten) = rewritten.map_err(CommandError::InvalidPayload)? {
        *payload = rewritten;
    }
    Ok(())
}
