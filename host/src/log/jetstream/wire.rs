//! The messages of the log's stream. All have one subject, `<name>.commits`: the order of the stream is the
//! order of the log. The payload is units, oldest first:
//!
//! ```json
//! {"format":3,"units":[
//!     {"begun": 7, "chain": 0, "appends": [
//!         {"stream": "order/0199…", "expected": 0, "meta": {"command_id": "…", …},
//!          "events": [{"name": "order-created", "payload": {…}}]}]}]}
//! ```
//!
//! A unit is written completely or not at all. `begun`: the last message that its publisher had copied when
//! the unit was begun. `chain`: the units of a chain build on each other; `stands_on`: another chain of the
//! message on which a unit builds. `fence`: later units of other hosts that were begun before are refused. An
//! answer without events is an append with no events and a member `answer`.
//!
//! Older versions of Kontor wrote a message for each event stream, with the stream's name as the subject:
//! formats 1 and 2. See [`PerStream`].

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::Sequence;
use super::outgoing::Request;
use crate::log::Append;
use crate::log::embedded::Unit;
use crate::model::{AppendChain, Json, LogMark, Meta, NewEvent, StreamId, Version};

/// The header with the [`PublishId`] of a message.
const PUBLISHED: &str = "Kontor-Publish";
/// The header with the mark of the newest event in the publisher's copy: `<position>/<hash>`.
const MARK: &str = "Kontor-Mark";

/// The version of the payload. Raised with every change that an older version of Kontor would read wrongly or
/// not at all: a host stops at a message with another one, and continues once it is updated.
const FORMAT: u32 = 3;
/// The versions with a message for each event stream.
const PER_STREAM: RangeInclusive<u32> = 1..=2;
/// The beginning of a payload of this version, as it is written. It spares a search for the member.
const BEGINNING: &[u8] = br#"{"format":3,"#;

/// The content of a message.
pub(super) enum Message {
    /// Units of any streams.
    Units(Vec<Unit>),
    /// Commits to one stream, from an older version of Kontor.
    PerStream(PerStream),
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

/// A payload to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// Checked before, see [`Format`].
    #[serde(rename = "format")]
    _format: u32,
    units: Vec<OldUnit>,
}

/// A unit to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldUnit {
    begun: Sequence,
    chain: u32,
    #[serde(default)]
    stands_on: Option<u32>,
    #[serde(default)]
    fence: bool,
    appends: Vec<OldAppend>,
}

/// An append to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldAppend {
    stream: StreamId,
    /// The version of the stream before.
    expected: Version,
    meta: Arc<Meta>,
    events: Vec<NewEvent>,
    #[serde(default)]
    answer: Option<Json>,
}

/// A payload to be written.
#[derive(Serialize)]
struct NewPayload<'a> {
    format: u32,
    units: Vec<NewUnit<'a>>,
}

/// A unit to be written.
#[derive(Serialize)]
struct NewUnit<'a> {
    begun: Sequence,
    chain: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_on: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fence: bool,
    appends: &'a RawValue,
}

/// An append to be written.
#[derive(Serialize)]
struct NewAppend<'a> {
    stream: &'a StreamId,
    expected: Version,
    meta: &'a Meta,
    events: &'a [NewEvent],
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Json>,
}

impl<'a> NewAppend<'a> {
    fn of(append: &'a Append) -> Self {
        let Append { stream, expected, events, meta, answer } = append;
        Self { stream, expected: *expected, meta, events, answer: answer.as_ref() }
    }
}

/// The payload of a message with commits to one stream. Several messages in sequence may be the parts of one
/// batch for several streams.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PerStream {
    /// Checked before, see [`Format`].
    #[serde(default, rename = "format")]
    _format: u32,
    stream: StreamId,
    /// The number of the message in its batch, from 1.
    part: u32,
    /// The number of messages in the batch.
    parts: u32,
    commits: Vec<Commit>,
}

/// The events of one command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    expected: Version,
    meta: Arc<Meta>,
    events: Vec<NewEvent>,
    #[serde(default)]
    answer: Option<Json>,
}

/// The reasons why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("it has format {found}, and this version of Kontor knows {FORMAT}: update this host")]
    Newer { found: u32 },
    #[error("it was not written by Kontor: restore the stream from a backup, or start with a new one")]
    Foreign(#[from] serde_json::Error),
}

/// Returns a batch as it stands in a message.
pub(super) fn encode_batch(batch: &[Append]) -> serde_json::Result<Box<RawValue>> {
    to_raw_value(&batch.iter().map(NewAppend::of).collect::<Vec<_>>())
}

/// Returns the payload of a message with these requests, of which each is to be published.
pub(super) fn encode(requests: &[Request]) -> serde_json::Result<Bytes> {
    let mut chains: HashMap<AppendChain, u32> = HashMap::new();
    let mut units = Vec::with_capacity(requests.len());
    for Request { footing, encoded, fence, begun, .. } in requests {
        let next = chains.len() as u32;
        let chain = *chains.entry(footing.chain).or_insert(next);
        let stands_on = footing.stands_on.and_then(|other| chains.get(&other).copied());
        let Some(appends) = encoded.as_deref() else { continue };
        units.push(NewUnit { begun: *begun, chain, stands_on, fence: *fence, appends });
    }
    serde_json::to_vec(&NewPayload { format: FORMAT, units }).map(Bytes::from)
}

impl Message {
    /// Parses a payload of any version.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let format = match payload.starts_with(BEGINNING) {
            true => FORMAT,
            false => serde_json::from_slice::<Format>(payload)?.format,
        };
        match format {
            FORMAT => {
                let payload: Payload = serde_json::from_slice(payload)?;
                Ok(Self::Units(payload.units.into_iter().map(OldUnit::into_unit).collect()))
            }
            format if PER_STREAM.contains(&format) => Ok(Self::PerStream(serde_json::from_slice(payload)?)),
            found => Err(DecodeError::Newer { found }),
        }
    }
}

impl OldUnit {
    fn into_unit(self) -> Unit {
        let Self { begun, chain, stands_on, fence, appends } = self;
        let append = |OldAppend { stream, expected, meta, events, answer }: OldAppend| Append {
            stream,
            expected,
            events,
            meta,
            answer,
        };
        Unit { begun, chain, stands_on, fence, appends: appends.into_iter().map(append).collect() }
    }
}

impl PerStream {
    /// Returns whether the message is the last part of its batch.
    pub(super) fn is_last(&self) -> bool {
        self.part == self.parts
    }

    /// Returns the commits as appends. A message without commits was a fence, and has done its work.
    pub(super) fn into_appends(self) -> impl Iterator<Item = Append> {
        let stream = self.stream;
        self.commits.into_iter().map(move |Commit { expected, meta, events, answer }| Append {
            stream: stream.clone(),
            expected,
            events,
            meta,
            answer,
        })
    }
}

/// Returns the subject of all messages of the log called `name`.
pub(super) fn subject(name: &str) -> String {
    format!("{name}.commits")
}

/// Returns the wildcard for the subjects of the log: older messages have others.
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
    use crate::log::Footing;

    fn append(id: &str) -> Append {
        let event = NewEvent { name: "done".into(), payload: Json::empty_object() };
        let stream = StreamId::new("order", id).unwrap();
        Append { events: vec![event], ..Append::nothing(stream, Version::START) }
    }

    fn request(footing: Footing, id: &str) -> Request {
        Request::new(footing, vec![append(id)], false, Sequence::new(7)).unwrap().0
    }

    #[test]
    fn units_come_back_as_they_were_encoded() {
        let (journal, command) = (AppendChain::new(), AppendChain::new());
        let on_journal = Footing { chain: command, stands_on: Some(journal) };
        let elsewhere = Footing { chain: AppendChain::new(), stands_on: Some(AppendChain::new()) };
        let requests = [
            request(journal.into(), "a"),
            Request { fence: true, ..request(on_journal, "b") },
            request(journal.into(), "c"),
            request(elsewhere, "d"),
        ];
        let payload = encode(&requests).unwrap();
        let Ok(Message::Units(units)) = Message::decode(&payload) else { panic!("{payload:?}") };
        let read = units.iter().map(|unit| {
            let Unit { appends, begun, fence, chain, stands_on } = unit;
            (appends[0].stream.id().to_owned(), begun.get(), *fence, *chain, *stands_on)
        });
        let expected = [
            ("a", false, 0, None),
            ("b", true, 1, Some(0)),
            ("c", false, 0, None),
            // The chain that it stands on is not in the message, so it is in the log.
            ("d", false, 2, None),
        ];
        let expected =
            expected.map(|(id, fence, chain, stands_on)| (id.to_owned(), 7, fence, chain, stands_on));
        assert_eq!(read.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_message_of_another_kind_is_an_error() {
        let text = encode(&[request(AppendChain::new().into(), "1")]).unwrap();
        let text = String::from_utf8(text.into()).unwrap();
        let older = r#"{"format": 1, "stream": "order/1", "part": 1, "parts": 1, "commits": [{"expected": 0,
            "meta": {"command_id": "c", "command": "do", "fingerprint": 1, "correlation_id": "c",
                "causation_id": null, "digest": null, "time_ms": 1, "actor": "ada"},
            "events": [{"name": "done", "payload": {}}]}]}"#;
        let foreign = "it was not written by Kontor";
        let newer = "it has format 4, and this version of Kontor knows 3: update this host";
        let table = [
            (text.clone(), ""),
            (text.replace(r#"{"format":3,"#, r#"{ "format": 3,"#), ""),
            (older.to_owned(), ""),
            (older.replace(r#""format": 1, "#, ""), ""),
            (text.replace(r#""format":3"#, r#""format":4"#), newer),
            (r#"{"format": 4, "lanes": []}"#.to_owned(), newer),
            (text.replace(r#""chain":0"#, r#""chain":0,"lane":3"#), foreign),
            (text.replace(r#""expected":0"#, r#""expected":0,"sealed":true"#), foreign),
            (text.replace(r#""begun":7,"#, ""), foreign),
            (older.replace(r#""part": 1,"#, ""), foreign),
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
