//! The metadata that all events of a command share, as JSON in the column `meta`. The command's id has a
//! column of its own.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Actor, CommandId, Digest, Meta, Role};

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
    #[serde(default, skip_serializing_if = "<[Role]>::is_empty")]
    roles: Arc<[Role]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<Actor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    via: Option<Actor>,
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
        roles: meta.roles.clone(),
        on_behalf_of: meta.on_behalf_of.clone(),
        via: meta.via.clone(),
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
        roles: stored.roles,
        on_behalf_of: stored.on_behalf_of,
        via: stored.via,
    })
}
