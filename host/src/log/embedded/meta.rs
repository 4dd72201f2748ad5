//! The metadata that all events of a command share, as JSON in the column `meta`. The command's id has a
//! column of its own. The names of the members are short, because each row has them: the hash of the commit
//! would make a command 3 % dearer otherwise. Earlier versions wrote them in full.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::log::Append;
use crate::model::{Actor, CommandId, Digest, Meta, Role};

/// The content of the column.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow, rename = "c", alias = "command")]
    command: Cow<'a, str>,
    #[serde(rename = "f", alias = "fingerprint")]
    fingerprint: u64,
    #[serde(borrow, rename = "r", alias = "correlation_id")]
    correlation_id: Cow<'a, str>,
    #[serde(default, rename = "b", alias = "causation_id", skip_serializing_if = "Option::is_none")]
    causation_id: Option<Cow<'a, str>>,
    #[serde(default, rename = "d", alias = "digest", skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(rename = "t", alias = "time_ms")]
    time_ms: u64,
    #[serde(borrow, rename = "a", alias = "actor")]
    actor: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "<[Role]>::is_empty")]
    roles: Arc<[Role]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<Actor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    via: Option<Actor>,
}

/// Returns the text for the column.
fn write(meta: &Meta) -> serde_json::Result<String> {
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

/// Returns the text for each append of a batch. It is empty for one without events.
pub(super) fn write_all(batch: &[Append]) -> serde_json::Result<Vec<String>> {
    let text = |append: &Append| match append.events.is_empty() {
        true => Ok(String::new()),
        false => write(&append.meta),
    };
    batch.iter().map(text).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_versions_have_written_is_read() {
        let digest = Digest::of(b"order");
        let meta = Meta {
            command_id: CommandId::from_key("cart-7"),
            command: "create".into(),
            fingerprint: 7,
            correlation_id: "r1".into(),
            causation_id: Some("e1".into()),
            digest: Some(digest),
            time_ms: 42,
            actor: "ada".into(),
            ..Meta::default()
        };
        let full = format!(
            r#"{{"command":"create","fingerprint":7,"correlation_id":"r1","causation_id":"e1",
                "digest":"{digest}","time_ms":42,"actor":"ada"}}"#
        );
        for text in [write(&meta).unwrap(), full] {
            assert_eq!(read(meta.command_id.clone(), &text).unwrap(), meta, "{text}");
        }
    }
}
