//! The format of an exported log: JSON lines, which any tool can read. Each is an object with one member,
//! which names its kind:
//!
//! ```json
//! {"kontor-log": {"format": 1, "last_position": 3}}
//! {"component": {"digest": "9f86…", "wasm": "AGFzbQ0AAQA…"}}
//! {"commit": {"position": 1, "stream": "order/A-1", "version": 1, "hash": "4e07…",
//!             "meta": {"command_id": "…", "command": "create", …},
//!             "events": [{"name": "order-created", "payload": {…}}]}}
//! {"end": {"components": 1, "commands": 2, "events": 3, "sha256": "…"}}
//! ```
//!
//! The components (in base64) that the log may need come first, then the events of one command a line, oldest
//! first. The hash of a commit covers the commit before, see [`CommitHasher`]; exports of older versions have
//! none. The last line has the checksum of all bytes before it, so a truncation or a change is noticed. The
//! same log always gives the same file.

use std::io::{self, BufRead, Read as _, Write};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::log::{Append, CommitHasher};
use crate::model::{CommitHash, Digest, Meta, NewEvent, Position, Recorded, StreamId, Version};

/// The version of the format. Raised with every change that an older version of Kontor cannot read.
const FORMAT: u32 = 1;
/// The longest line. The largest component has two thirds of it in base64, and events are far smaller. It
/// keeps other files from filling the memory.
const MAX_LINE_BYTES: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    KontorLog(Header),
    Component(Wasm),
    Commit(Commit),
    End(Summary),
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    /// The position of the log's last event.
    last_position: Position,
}

#[derive(Serialize, Deserialize)]
struct Wasm {
    digest: Digest,
    /// In base64.
    wasm: String,
}

/// The events of one command in one stream.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Commit {
    /// The position of the first event; the others follow.
    pub(super) position: Position,
    pub(super) stream: StreamId,
    /// The version of the stream after the first event.
    pub(super) version: Version,
    /// The hash of the commit. `None`: an older version has written the export, and it is not read yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<CommitHash>,
    meta: Arc<Meta>,
    pub(super) events: Vec<NewEvent>,
}

/// The numbers of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The number of components.
    pub components: u64,
    /// The number of commands.
    pub commands: u64,
    /// The number of events.
    pub events: u64,
    /// The checksum of all lines but the last, in hexadecimal digits.
    pub sha256: String,
}

impl Commit {
    pub(super) fn new(first: Recorded) -> Self {
        let Recorded { position, stream, version, name, payload, meta, hash, .. } = first;
        let event = NewEvent { name, payload: payload.on_one_line() };
        Self { position, stream, version, hash: Some(hash), meta, events: vec![event] }
    }

    pub(super) fn push(&mut self, next: Recorded) {
        self.events.push(NewEvent { name: next.name, payload: next.payload.on_one_line() });
    }

    /// The position of the last event.
    pub(super) fn last(&self) -> Position {
        self.position.after(self.events.len()).before(1)
    }

    /// Returns the hash that the commit must have on top of `previous`.
    pub(super) fn hash_on(&self, previous: CommitHash) -> CommitHash {
        let Self { position, stream, version, meta, events, .. } = self;
        CommitHasher::commit(previous, *position, stream, *version, meta, events)
    }

    pub(super) fn into_append(self) -> Append {
        let Self { stream, version, events, meta, .. } = self;
        Append { stream, expected: version.before(1), events, meta, answer: None }
    }
}

/// Writes an export, line by line.
pub(super) struct Writer<W> {
    out: W,
    hash: Sha256,
    summary: Summary,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, last_position: Position) -> io::Result<Self> {
        let mut writer = Self { out, hash: Sha256::new(), summary: Summary::default() };
        writer.write(&Line::KontorLog(Header { format: FORMAT, last_position }))?;
        Ok(writer)
    }

    pub(super) fn component(&mut self, digest: Digest, wasm: &[u8]) -> io::Result<()> {
        self.summary.components += 1;
        self.write(&Line::Component(Wasm { digest, wasm: BASE64.encode(wasm) }))
    }

    pub(super) fn commit(&mut self, commit: Commit) -> io::Result<()> {
        self.summary.commands += 1;
        self.summary.events += commit.events.len() as u64;
        self.write(&Line::Commit(commit))
    }

    /// Writes the last line, without which an export is not complete.
    pub(super) fn finish(mut self) -> io::Result<Summary> {
        self.summary.sha256 = hex::encode(self.hash.clone().finalize());
        let end = self.summary.clone();
        self.write(&Line::End(end))?;
        self.out.flush()?;
        Ok(self.summary)
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.out.write_all(&text)
    }
}

/// The reason why an export cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file cannot be read.
    #[error("the export cannot be read")]
    Read(#[from] io::Error),
    /// The file is something else.
    #[error("this is no export of a log")]
    NotAnExport,
    /// The export was written by a newer version.
    #[error(
        "this is an export of a newer version of Kontor (format {found}, this one reads {FORMAT}): use that \
         version"
    )]
    Newer {
        /// The version of the format.
        found: u32,
    },
    /// The export is not complete.
    #[error("the export ends in line {line}, before it is complete; copy or make it again")]
    Truncated {
        /// The last line.
        line: u64,
    },
    /// The export was changed.
    #[error("line {line} of the export is damaged: {reason}; copy or make it again")]
    Damaged {
        /// The line.
        line: u64,
        /// The damage.
        reason: String,
    },
}

/// A line between the first and the last.
#[derive(Debug)]
pub(super) enum Item {
    Component(Vec<u8>),
    Commit(Commit),
}

/// Reads an export line by line, and checks everything.
pub(super) struct Reader<R> {
    input: R,
    hash: Sha256,
    /// The number of the last line that was read, from 1.
    line: u64,
    text: Vec<u8>,
    last_position: Position,
    /// The hash of the last commit that was read.
    chain: CommitHash,
    /// The numbers of the lines read so far.
    summary: Summary,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R) -> Result<Self, FormatError> {
        let (hash, summary) = (Sha256::new(), Summary::default());
        let mut reader = Self {
            input,
            hash,
            line: 0,
            text: Vec::new(),
            last_position: Position::START,
            chain: CommitHash::GENESIS,
            summary,
        };
        // A damaged first line means another kind of file.
        let first = reader.read().map_err(|error| match error {
            FormatError::Read(error) => FormatError::Read(error),
            _ => FormatError::NotAnExport,
        })?;
        let Line::KontorLog(header) = first else { return Err(FormatError::NotAnExport) };
        if header.format > FORMAT {
            return Err(FormatError::Newer { found: header.format });
        }
        reader.last_position = header.last_position;
        Ok(reader)
    }

    /// Returns the position of the last event.
    pub(super) fn last_position(&self) -> Position {
        self.last_position
    }

    /// Reads the next item. Returns none at the end of an export that is whole.
    pub(super) fn next(&mut self) -> Result<Option<Item>, FormatError> {
        let before = self.hash.clone();
        match self.read()? {
            Line::KontorLog(_) => Err(self.damaged("it belongs at the beginning")),
            Line::Component(component) => {
                let wasm = BASE64.decode(component.wasm).map_err(|error| self.damaged(error))?;
                if Digest::of(&wasm) != component.digest {
                    return Err(self.damaged("the component has another digest"));
                }
                self.summary.components += 1;
                Ok(Some(Item::Component(wasm)))
            }
            Line::Commit(mut commit) => {
                if commit.position.get() != self.summary.events + 1
                    || commit.version == Version::START
                    || commit.events.is_empty()
                {
                    return Err(self.damaged("it does not follow the line before"));
                }
                let hash = commit.hash_on(self.chain);
                if *commit.hash.get_or_insert(hash) != hash {
                    return Err(
                        self.damaged("its hash does not follow from the commit before and its content")
                    );
                }
                self.chain = hash;
                self.summary.commands += 1;
                self.summary.events += commit.events.len() as u64;
                Ok(Some(Item::Commit(commit)))
            }
            Line::End(end) => {
                self.summary.sha256 = hex::encode(before.finalize());
                if end != self.summary || end.events != self.last_position.get() {
                    return Err(self.damaged("its checksum is that of another export"));
                }
                Ok(None)
            }
        }
    }

    /// Returns the hash of the last commit that was read.
    pub(super) fn chain(&self) -> CommitHash {
        self.chain
    }

    /// Returns the numbers of all lines read.
    pub(super) fn summary(&self) -> &Summary {
        &self.summary
    }

    fn read(&mut self) -> Result<Line, FormatError> {
        self.line += 1;
        self.text.clear();
        self.input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut self.text)?;
        if self.text.len() as u64 == MAX_LINE_BYTES {
            return Err(self.damaged("it is too long"));
        }
        if self.text.last() != Some(&b'\n') {
            return Err(FormatError::Truncated { line: self.line });
        }
        self.hash.update(&self.text);
        serde_json::from_slice(&self.text).map_err(|error| self.damaged(error))
    }

    fn damaged(&self, reason: impl ToString) -> FormatError {
        FormatError::Damaged { line: self.line, reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommandId, Json};

    fn recorded(number: u64, index: u32, payload: &str) -> Recorded {
        let meta = Meta {
            command_id: CommandId::from(format!("c{}", number - u64::from(index))),
            fingerprint: u64::MAX,
            digest: Some(Digest::of(b"component")),
            causation_id: Some("order/A-1/0".into()),
            time_ms: 1,
            ..Meta::default()
        };
        let stream = StreamId::new("order", "A-1").unwrap();
        let payload = Json::parse(payload.to_owned()).unwrap();
        let (position, version) = (Position::new(number), Version::new(number));
        let (name, meta, hash) = ("done".into(), meta.into(), CommitHash::GENESIS);
        Recorded { position, stream, version, index, name, payload, meta, hash }
    }

    fn commits() -> [Commit; 2] {
        let mut first = Commit::new(recorded(1, 0, r#"{"text": "a\nb"}"#));
        first.push(recorded(2, 1, "{\n  \"n\": 1.0\r\n}"));
        let mut second = Commit::new(recorded(3, 0, "{}"));
        let hash = first.hash_on(CommitHash::GENESIS);
        (first.hash, second.hash) = (Some(hash), Some(second.hash_on(hash)));
        [first, second]
    }

    /// Returns an export of four lines and the last one.
    fn export() -> Vec<u8> {
        let mut text = Vec::new();
        let mut writer = Writer::new(&mut text, Position::new(3)).unwrap();
        writer.component(Digest::of(b"component"), b"component").unwrap();
        for commit in commits() {
            writer.commit(commit).unwrap();
        }
        writer.finish().unwrap();
        text
    }

    fn read(text: &[u8]) -> Result<(Vec<Item>, Summary), FormatError> {
        let mut reader = Reader::new(text)?;
        let mut items = Vec::new();
        while let Some(item) = reader.next()? {
            items.push(item);
        }
        Ok((items, reader.summary().clone()))
    }

    #[test]
    fn a_written_export_is_read_unchanged() {
        let text = export();
        let (mut items, summary) = read(&text).unwrap();
        assert_eq!(
            (summary.components, summary.commands, summary.events, summary.sha256.len()),
            (1, 2, 3, 64)
        );
        let [first, second] = commits();
        assert!(matches!(items.remove(0), Item::Component(wasm) if wasm == b"component"));
        assert!(
            matches!(items.remove(0), Item::Commit(commit) if commit == first && commit.last().get() == 2)
        );
        assert!(matches!(items.remove(0), Item::Commit(commit) if commit == second));
        assert_eq!(items.len(), 0);
    }

    #[test]
    fn every_line_is_one_object_for_any_payload() {
        let text = String::from_utf8(export()).unwrap();
        assert_eq!(text.lines().count(), 5);
        for line in text.lines() {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            assert_eq!(object.len(), 1, "{line}");
        }
        assert!(text.contains(r#"{"text": "a\nb"}"#) && text.contains(r#"{   "n": 1.0  }"#), "{text}");
    }

    #[test]
    fn an_export_that_is_truncated_anywhere_is_rejected() {
        let text = export();
        for length in 0..text.len() {
            read(&text[..length]).expect_err(&format!("{length} of {} bytes", text.len()));
        }
    }

    /// Returns an export as an older version has written it, but for its last line.
    fn without_hashes(text: &str) -> String {
        let hashes = commits().map(|commit| format!("\"hash\":\"{}\",", commit.hash.unwrap()));
        hashes.iter().fold(text.to_owned(), |text, hash| text.replace(hash, ""))
    }

    #[test]
    fn an_export_without_hashes_gets_them() {
        let text = without_hashes(&String::from_utf8(export()).unwrap());
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        reader.next().unwrap();
        let [first, second] = commits();
        for wanted in [first, second] {
            let Some(Item::Commit(commit)) = reader.next().unwrap() else { panic!("it is a commit") };
            assert_eq!(commit.hash, wanted.hash);
        }
    }

    #[test]
    fn each_kind_of_damage_has_its_own_error() {
        let text = String::from_utf8(export()).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let without = |left_out: usize| {
            let kept = lines.iter().enumerate().filter(|(number, _)| *number != left_out);
            kept.map(|(_, line)| *line).collect::<String>()
        };
        let table = [
            (String::new(), "this is no export of a log"),
            ("{\"items\": []}\n".to_owned(), "this is no export of a log"),
            (text.replace("\"format\":1", "\"format\":2"), "an export of a newer version"),
            (without(0), "this is no export of a log"),
            (without(1), "line 4 of the export is damaged: its checksum"),
            (without(2), "line 3 of the export is damaged: it does not follow"),
            (without(4), "the export ends in line 5"),
            (text.replace("\"time_ms\":1", "\"time_ms\":2"), "line 3 of the export is damaged: its hash"),
            (
                without_hashes(&text).replace("\"time_ms\":1", "\"time_ms\":2"),
                "line 5 of the export is damaged: its checksum",
            ),
            (text.replace(&BASE64.encode(b"component"), &BASE64.encode(b"another")), "has another digest"),
            (text.replace("\"commit\"", "\"comment\""), "line 3 of the export is damaged: unknown variant"),
        ];
        for (text, expected) in table {
            let error = read(text.as_bytes()).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}\nis not: {expected}");
        }
    }
}
