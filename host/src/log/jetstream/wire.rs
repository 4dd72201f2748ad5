//! The messages of the log's stream. The subject of a message is that of one event stream, literally, so that
//! the server can compare the subject's last sequence: `<name>.<aggregate>.<id>`. Its payload is commits,
//! oldest first:
//!
//! ```json
//! {"format": 1, "stream": "order/0199…", "part": 1, "parts": 1, "commits": [
//!     {"expected": 0, "meta": {"command_id": "…", …},
//!      "events": [{"name": "order-created", "payload": {…}}]}]}
//! ```
//!
//! An answer without events is a commit with no events and a member `answer`; its message has format 2.
//!
//! A batch for several event streams is several messages, all or none of which the server stores, in
//! sequence.

use std::io::{self, Write};
use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::log::Append;
use crate::model::{Json, LogMark, Meta, NewEvent, StreamId, Version};

/// The header with the [`PublishId`] of a message.
const PUBLISHED: &str = "Kontor-Publish";
/// The header with the mark of the newest event in the publisher's copy: `<position>/<hash>`.
const MARK: &str = "Kontor-Mark";

/// The version of the payload. Raised with every change that an older version of Kontor would read wrongly or
/// not at all: a host stops at a message with another one, and continues once it is updated.
const FORMAT: u32 = 1;
/// The version of a payload with an answer.
const WITH_ANSWERS: u32 = 2;

/// The payload of a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    /// Checked before, see [`Format`].
    #[serde(default, rename = "format")]
    _format: u32,
    stream: StreamId,
    /// The number of the message in its batch, from 1.
    pub(super) part: u32,
    /// The number of messages in the batch.
    pub(super) parts: u32,
    commits: Vec<Commit>,
}

/// The member that all versions of the payload have. Messages of the first version may lack it.
#[derive(Deserialize)]
struct Format {
    #[serde(default = "Format::first")]
    format: u32,
}

impl Format {
    fn first() -> u32 {
        1
    }
}

/// The events of one command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    /// The version of the stream before the commit.
    expected: Version,
    meta: Arc<Meta>,
    events: Vec<NewEvent>,
    #[serde(default)]
    answer: Option<Json>,
}

/// A [`Message`] to be written.
#[derive(Serialize)]
struct NewMessage<'a> {
    format: u32,
    stream: &'a StreamId,
    part: u32,
    parts: u32,
    commits: Vec<NewCommit<'a>>,
}

/// A [`Commit`] to be written.
#[derive(Serialize)]
struct NewCommit<'a> {
    expected: Version,
    meta: &'a Meta,
    events: &'a [NewEvent],
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Json>,
}

impl<'a> NewCommit<'a> {
    fn of(append: &'a Append) -> Self {
        let Append { expected, events, meta, answer, .. } = append;
        Self { expected: *expected, meta, events, answer: answer.as_ref() }
    }
}

/// The reasons why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("it has format {found}, and this version of Kontor knows {WITH_ANSWERS}: update this host")]
    Newer { found: u32 },
    #[error("it was not written by Kontor: restore the stream from a backup, or start with a new one")]
    Foreign(#[from] serde_json::Error),
}

/// Returns the payload of a message with appends to one stream. `number` and `count`: the place of the
/// message in its batch.
pub(super) fn encode<'a>(
    stream: &StreamId,
    (number, count): (u32, u32),
    appends: impl Iterator<Item = &'a Append>,
) -> serde_json::Result<Bytes> {
    let commits: Vec<_> = appends.map(NewCommit::of).collect();
    let answers = commits.iter().any(|commit| commit.answer.is_some());
    let format = if answers { WITH_ANSWERS } else { FORMAT };
    let message = NewMessage { format, stream, part: number, parts: count, commits };
    serde_json::to_vec(&message).map(Bytes::from)
}

/// Returns the bytes that an append takes in a message.
pub(super) fn encoded_len(append: &Append) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Err: impossible, because the type has a JSON form and the writer takes everything.
    let _ = serde_json::to_writer(&mut count, &NewCommit::of(append));
    count.0
}

impl Message {
    /// Parses the output of [`encode`].
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let format: Format = serde_json::from_slice(payload)?;
        match format.format {
            FORMAT | WITH_ANSWERS => Ok(serde_json::from_slice(payload)?),
            found => Err(DecodeError::Newer { found }),
        }
    }

    /// Returns the stream if there are no commits: the message is a fence.
    pub(super) fn fenced(&self) -> Option<&StreamId> {
        self.commits.is_empty().then_some(&self.stream)
    }

    /// Returns the commits as appends.
    pub(super) fn into_appends(self) -> impl Iterator<Item = Append> {
        let stream = self.stream;
        self.commits.into_iter().map(move |commit| Append {
            stream: stream.clone(),
            expected: commit.expected,
            events: commit.events,
            meta: commit.meta,
            answer: commit.answer,
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

/// Writes the mark of the newest event in the publisher's copy.
pub(super) fn write_mark(LogMark { position, hash }: LogMark, headers: &mut HeaderMap) {
    headers.insert(MARK, format!("{position}/{hash}"));
}

/// Reads that mark. `None`: there is none that can be parsed.
pub(super) fn read_mark(headers: Option<&HeaderMap>) -> Option<LogMark> {
    let (position, hash) = headers?.get(MARK)?.as_str().split_once('/')?;
    Some(LogMark { position: position.parse().ok()?, hash: hash.parse().ok()? })
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
    fn a_message_of_another_kind_is_an_error() {
        let stream = StreamId::parse("order/1").unwrap();
        let append = Append {
            events: vec![NewEvent { name: "done".into(), payload: crate::model::Json::empty_object() }],
            ..Append::nothing(stream.clone(), Version::START)
        };
        let text = String::from_utf8(encode(&stream, (1, 1), [&append].into_iter()).unwrap().into()).unwrap();
        assert!(text.contains(r#""name":"done""#), "{text}");
        assert!(encoded_len(&append) + 60 < text.len() + 20, "{} of {}", encoded_len(&append), text.len());
        let foreign = "it was not written by Kontor";
        let table = [
            (text.clone(), ""),
            (text.replace(r#""format":1,"#, ""), ""),
            (text.replace(r#""format":1"#, r#""format":3"#), "it has format 3, and this version of Kontor"),
            (r#"{"format": 3, "lanes": []}"#.to_owned(), "it has format 3, and this version of Kontor"),
            (text.replace(r#""part":1"#, r#""part":1,"lane":3"#), foreign),
            (text.replace(r#""expected":0"#, r#""expected":0,"sealed":true"#), foreign),
            (text.replace(r#""part":1,"#, ""), foreign),
            ("hello".to_owned(), foreign),
        ];
        for (text, expected) in table {
            let found = Message::decode(text.as_bytes()).err().map(|error| error.to_string());
            let found = found.unwrap_or_default();
            assert!(
                found.starts_with(expected) && found.is_empty() == expected.is_empty(),
                "{text}: {found}"
            );
        }
    }

    #[test]
    fn a_process_recognizes_its_messages() {
        let mut headers = HeaderMap::new();
        assert_eq!(PublishId::read(Some(&headers)), None);
        let id = PublishId { process: uuid::Uuid::now_v7(), number: 7 };
        id.write(&mut headers);
        assert_eq!(PublishId::read(Some(&headers)), Some(id));
        assert_eq!(read_mark(Some(&headers)), None);
        let hash = crate::model::CommitHash::new([7; 32]);
        let mark = LogMark { position: crate::model::Position::new(8), hash };
        write_mark(mark, &mut headers);
        assert_eq!(read_mark(Some(&headers)), Some(mark));
    }
}
