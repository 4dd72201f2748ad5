//! The messages of the log's stream. The subject of a message is that of one event stream, literally, so that
//! the server can compare the subject's last sequence: `<name>.<aggregate>.<id>`. Its payload is commits,
//! oldest first:
//!
//! ```json
//! {"stream": "order/0199…", "part": 1, "parts": 1, "commits": [
//!     {"expected": 0, "meta": {"command_id": "…", …},
//!      "events": [{"name": "order-created", "payload": {…}}]}]}
//! ```
//!
//! A batch for several event streams is several messages, all or none of which the server stores, in
//! sequence.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::log::Append;
use crate::model::{Meta, NewEvent, StreamId, Version};

/// The header with the [`PublishId`] of a message.
const PUBLISHED: &str = "Kontor-Publish";

/// The payload of a message.
#[derive(Serialize, Deserialize)]
pub(super) struct Message {
    stream: StreamId,
    /// The number of the message in its batch, from 1.
    pub(super) part: u32,
    /// The number of messages in the batch.
    pub(super) parts: u32,
    commits: Vec<Commit>,
}

/// The events of one command.
#[derive(Serialize, Deserialize)]
struct Commit {
    /// The version of the stream before the commit.
    expected: Version,
    meta: Arc<Meta>,
    events: Vec<NewEvent>,
}

impl Message {
    /// Returns the message for appends to one stream.
    pub(super) fn of<'a>(
        stream: &StreamId,
        (part, parts): (u32, u32),
        appends: impl Iterator<Item = &'a Append>,
    ) -> Self {
        let commit = |append: &Append| Commit {
            expected: append.expected,
            meta: append.meta.clone(),
            events: append.events.clone(),
        };
        Self { stream: stream.clone(), part, parts, commits: appends.map(commit).collect() }
    }

    /// Returns the message as JSON.
    pub(super) fn encode(&self) -> serde_json::Result<Bytes> {
        serde_json::to_vec(self).map(Bytes::from)
    }

    /// Parses the output of [`Message::encode`].
    pub(super) fn decode(payload: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(payload)
    }

    /// Returns the commits as appends.
    pub(super) fn into_appends(self) -> impl Iterator<Item = Append> {
        let stream = self.stream;
        self.commits.into_iter().map(move |commit| Append {
            stream: stream.clone(),
            expected: commit.expected,
            events: commit.events,
            meta: commit.meta,
        })
    }
}

/// Returns the subject of an event stream in the log called `name`. Dots are replaced by `=`, which no id
/// contains, because a dot would split the id into tokens.
pub(super) fn subject(name: &str, stream: &StreamId) -> String {
    let token = |part: &str| part.replace('.', "=");
    format!("{name}.{}.{}", token(stream.aggregate()), token(stream.id()))
}

/// Returns the wildcard for the subjects of all event streams.
pub(super) fn subjects(name: &str) -> String {
    format!("{name}.>")
}

/// Identifies a message to the process that has published it, which recognizes the message when the copy
/// receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PublishId {
    /// The process, for as long as it has the log open.
    pub(super) process: uuid::Uuid,
    pub(super) number: u64,
}

impl PublishId {
    /// Writes the header.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.insert(PUBLISHED, format!("{}/{}", self.process, self.number));
    }

    /// Reads the header. `None`: there is none that can be parsed.
    pub(super) fn read(headers: Option<&HeaderMap>) -> Option<Self> {
        let (process, number) = headers?.get(PUBLISHED)?.as_str().split_once('/')?;
        Some(Self { process: process.parse().ok()?, number: number.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_has_a_subject_of_two_tokens() {
        for (stream, expected) in [
            ("order/0199-a", "kontor-log.order.0199-a"),
            ("order/a.b..c", "kontor-log.order.a=b==c"),
            ("a.b/x:y~z_", "kontor-log.a=b.x:y~z_"),
        ] {
            assert_eq!(subject("kontor-log", &StreamId::parse(stream).unwrap()), expected);
        }
    }

    #[test]
    fn a_process_recognizes_its_messages() {
        let mut headers = HeaderMap::new();
        assert_eq!(PublishId::read(Some(&headers)), None);
        let id = PublishId { process: uuid::Uuid::now_v7(), number: 7 };
        id.write(&mut headers);
        assert_eq!(PublishId::read(Some(&headers)), Some(id));
    }
}
