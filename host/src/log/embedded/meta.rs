//! The metadata that all events of a command share, as JSON in the column `meta`. The command's id has a
//! column of its own.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::model::{CommandId, Digest, Meta};

/// The content of the column.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    command: Cow<'a, str>,
    fingerprint: u64,
    #[serde(borrow)]
    correlation_id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causation_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    time_ms: u64,
    #[serde(borrow)]
    actor: Cow<'a, str>,
}

/// Returns the text for the column.
pub(super) fn write(meta: &Meta) -> serde_json::Result<String> {
    serde_json::to_string(&Stored {
        command: Cow::Borrowed(meta.command.as_str()),
        fingerprint: meta.fingerprint,
        correlation_id: Cow::Borrowed(meta.correlation_id.as_str()),
        causation_id: meta.causation_id.as_deref().map(Cow::Borrowed),
        digest: meta.digest,
        time_ms: meta.time_ms,
        actor: Cow::Borrowed(meta.actor.as_str()),
    })
}

/// Parses the output of [`write`].
pub(super) fn read(command_id: CommandId, text: &str) -> serde_json::Result<Meta> {
    let stored: Stored<'_> = serde_json::from_str(text)?;
    Ok(Meta {
        command_id,
        command: stored.command.into(),
        fingerprint: stored.fingerprint,
        correlation_id: stored.correlation_id.into(),
        causation_id: stored.causation_id.map(Into::into),
        digest: stored.digest,
        time_ms: stored.time_ms,
        actor: stored.actor.into(),
    })
}
