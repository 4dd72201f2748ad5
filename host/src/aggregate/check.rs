//! The check of payloads, on their way from any sender to a component.

use super::error::CommandError;
use crate::model::{Command, Intent};
use crate::runtime::Component;

/// Checks the payload of a command against its schema. An undo has none.
pub(super) fn check_payload(component: &Component, command: &Command) -> Result<(), CommandError> {
    let Command { stream, name, payload, intent, .. } = command;
    match intent {
        Intent::Decide => component.schemas().check_payload(stream.aggregate(), name.as_str(), payload),
        Intent::Compensate { .. } => Ok(()),
    }
    .map_err(CommandError::InvalidPayload)
}
