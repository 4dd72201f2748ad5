//! The hash chain of the log. The hash of a commit is the SHA-256 of its fields, in the order of this table:
//!
//! | tag | field |
//! |---|---|
//! | 0 | hash of the commit before; of the first one, 32 zero bytes |
//! | 1 | position of the first event, a number |
//! | 2 | name of the stream |
//! | 3 | version of the stream after the first event, a number |
//! | 4 | id of the command |
//! | 5 | name of the command |
//! | 6 | fingerprint of the command, a number |
//! | 7 | correlation id |
//! | 8 | causation id, if there is one |
//! | 9 | digest of the component, 32 bytes, if there is one |
//! | 10 | time of the command, a number |
//! | 11 | actor |
//! | 12 | a role of the actor: once for each role, in their order |
//! | 13 | the user on whose behalf the actor acts, if there is one |
//! | 14 | the saga that acts for the actor, if there is one |
//! | 32 | name of an event, and |
//! | 33 | payload of the event: once for each event, in their order |
//!
//! A field is its tag (one byte), the length of its value (8 bytes) and the value: a text in UTF-8, a number
//! in 8 bytes; numbers are little-endian. A field that is absent is left out, so a field that a later version
//! adds leaves the hashes of older commits as they are. In payloads, each line break counts as a space, which
//! means the same in JSON: exports have payloads on one line, and the same hashes.

use sha2::{Digest as _, Sha256};

use super::Append;
use crate::model::{CommitHash, Meta, NewEvent, Position, StreamId, Version};

const PREVIOUS: u8 = 0;
const POSITION: u8 = 1;
const STREAM: u8 = 2;
const VERSION: u8 = 3;
const COMMAND_ID: u8 = 4;
const COMMAND: u8 = 5;
const FINGERPRINT: u8 = 6;
const CORRELATION_ID: u8 = 7;
const CAUSATION_ID: u8 = 8;
const DIGEST: u8 = 9;
const TIME: u8 = 10;
const ACTOR: u8 = 11;
const ROLE: u8 = 12;
const ON_BEHALF_OF: u8 = 13;
const VIA: u8 = 14;
const EVENT_NAME: u8 = 32;
const EVENT_PAYLOAD: u8 = 33;

/// The hash of a commit, event by event.
pub struct CommitHasher(Sha256);

impl CommitHasher {
    /// Returns the hash of a whole commit. `position` and `version` are those of its first event.
    pub(crate) fn commit(
        previous: CommitHash,
        position: Position,
        stream: &StreamId,
        version: Version,
        meta: &Meta,
        events: &[NewEvent],
    ) -> CommitHash {
        let mut hasher = Self::begin(previous, position, stream, version, meta);
        for event in events {
            hasher.event(event.name.as_str(), event.payload.as_str());
        }
        hasher.finish()
    }

    /// Begins a commit on top of `previous`. `position` and `version` are those of its first event.
    pub fn begin(
        previous: CommitHash,
        position: Position,
        stream: &StreamId,
        version: Version,
        meta: &Meta,
    ) -> Self {
        let Meta {
            command_id,
            command,
            fingerprint,
            correlation_id,
            causation_id,
            digest,
            time_ms,
            actor,
            roles,
            on_behalf_of,
            via,
        } = meta;
        let mut hasher = Self(Sha256::new());
        hasher.field(PREVIOUS, previous.as_bytes());
        hasher.number(POSITION, position.get());
        hasher.field(STREAM, stream.as_str().as_bytes());
        hasher.number(VERSION, version.get());
        hasher.field(COMMAND_ID, command_id.as_str().as_bytes());
        hasher.field(COMMAND, command.as_str().as_bytes());
        hasher.number(FINGERPRINT, *fingerprint);
        hasher.field(CORRELATION_ID, correlation_id.as_str().as_bytes());
        if let Some(causation_id) = causation_id {
            hasher.field(CAUSATION_ID, causation_id.as_bytes());
        }
        if let Some(digest) = digest {
            hasher.field(DIGEST, digest.as_bytes());
        }
        hasher.number(TIME, *time_ms);
        hasher.field(ACTOR, actor.as_str().as_bytes());
        roles.iter().for_each(|role| hasher.field(ROLE, role.as_str().as_bytes()));
        for (tag, name) in [(ON_BEHALF_OF, on_behalf_of), (VIA, via)] {
            if let Some(name) = name {
                hasher.field(tag, name.as_str().as_bytes());
            }
        }
        hasher
    }

    /// Adds the next event.
    pub fn event(&mut self, name: &str, payload: &str) {
        self.field(EVENT_NAME, name.as_bytes());
        self.start_field(EVENT_PAYLOAD, payload.len());
        for (index, line) in payload.as_bytes().split(|byte| matches!(byte, b'\n' | b'\r')).enumerate() {
            if index > 0 {
                self.0.update(b" ");
            }
            self.0.update(line);
        }
    }

    /// Returns the hash.
    pub fn finish(self) -> CommitHash {
        CommitHash::new(self.0.finalize().into())
    }

    fn number(&mut self, tag: u8, number: u64) {
        self.field(tag, &number.to_le_bytes());
    }

    fn field(&mut self, tag: u8, value: &[u8]) {
        self.start_field(tag, value.len());
        self.0.update(value);
    }

    fn start_field(&mut self, tag: u8, length: usize) {
        let mut head = [tag; 9];
        head[1..].copy_from_slice(&(length as u64).to_le_bytes());
        self.0.update(head);
    }
}

impl Append {
    /// Returns the hash of the commit, if `previous` is the hash of the commit before and `position` that of
    /// its first event.
    pub(super) fn hash(&self, previous: CommitHash, position: Position) -> CommitHash {
        let version = self.expected.next();
        CommitHasher::commit(previous, position, &self.stream, version, &self.meta, &self.events)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::model::{CommandId, Digest, Json};

    fn event(name: &str, payload: &str) -> NewEvent {
        NewEvent { name: name.into(), payload: Json::parse(payload.to_owned()).unwrap() }
    }

    fn commit() -> Append {
        let meta = Meta {
            command_id: CommandId::from("c".to_owned()),
            command: "create".into(),
            fingerprint: 7,
            correlation_id: "r".into(),
            causation_id: Some("b/0".into()),
            digest: Some(Digest::of(b"component")),
            time_ms: 1_700_000_000_000,
            actor: "ada".into(),
            ..Meta::default()
        };
        let events = vec![event("created", r#"{"a": 1}"#), event("confirmed", "{}")];
        let stream = StreamId::new("order", "1").unwrap();
        Append { events, meta: meta.into(), ..Append::nothing(stream, Version::new(4)) }
    }

    fn hash(append: &Append) -> CommitHash {
        append.hash(CommitHash::GENESIS, Position::new(9))
    }

    /// Stored logs have these hashes, so they must never change.
    #[test]
    fn the_encoding_stays_as_it_is() {
        let expected = "e9a15b743bb54b4ad38b7f6e78b4e4beeef921b7d788aa64046c4d3821a81319";
        assert_eq!(hash(&commit()).to_string(), expected);
    }

    #[test]
    fn a_change_of_any_field_changes_the_hash() {
        type Change<'a> = &'a dyn Fn(&mut Append);
        let meta = |change: fn(&mut Meta)| move |append: &mut Append| change(Arc::make_mut(&mut append.meta));
        let changes: [Change<'_>; 21] = [
            &|_| {},
            &|append| append.stream = StreamId::new("order", "2").unwrap(),
            &|append| append.expected = Version::new(5),
            &meta(|meta| meta.command_id = CommandId::from("d".to_owned())),
            &meta(|meta| meta.command = "creat".into()),
            &meta(|meta| meta.fingerprint = 8),
            &meta(|meta| meta.correlation_id = "".into()),
            &meta(|meta| meta.causation_id = None),
            &meta(|meta| meta.causation_id = Some("".into())),
            &meta(|meta| meta.digest = None),
            &meta(|meta| meta.time_ms += 1),
            &meta(|meta| meta.actor = "eve".into()),
            &meta(|meta| meta.roles = ["clerk".into()].into()),
            &meta(|meta| meta.roles = ["clerk".into(), "auditor".into()].into()),
            &meta(|meta| meta.on_behalf_of = Some("eve".into())),
            &meta(|meta| meta.via = Some("eve".into())),
            &|append| append.events.swap(0, 1),
            &|append| append.events.truncate(1),
            &|append| append.events[1].name = "confirms".into(),
            &|append| append.events[1].payload = event("", "{ }").payload,
            &|append| append.events[0].payload = event("", r#"{"a": 2}"#).payload,
        ];
        let hashes = changes.iter().map(|change| {
            let mut append = commit();
            change(&mut append);
            hash(&append)
        });
        let mut hashes: HashSet<_> = hashes.collect();
        hashes.insert(commit().hash(hash(&commit()), Position::new(9)));
        hashes.insert(commit().hash(CommitHash::GENESIS, Position::new(10)));
        assert_eq!(hashes.len(), changes.len() + 2, "all of them differ");
    }

    #[test]
    fn a_payload_on_one_line_has_the_same_hash() {
        let mut lines = commit();
        lines.events[0] = event("created", "{\r\n\"a\":\n1}");
        let mut line = lines.clone();
        line.events[0].payload = lines.events[0].payload.clone().on_one_line();
        assert_ne!(line.events, lines.events);
        assert_eq!(hash(&line), hash(&lines));
    }
}
