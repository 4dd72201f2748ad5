//! The nouns of the domain as types: commands, events, streams, versions, positions. No I/O.

mod act;
mod caller;
mod chain;
mod hash;
mod json;
mod meta;
mod name;
mod place;
mod precondition;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

pub use self::act::AuditedAct;
pub(crate) use self::act::{AUDIT, AUDITED};
pub use self::caller::{ANONYMOUS, AUDITOR, BY_SAGA, Caller, DEPLOYER, MONITOR, OPERATOR};
pub use self::chain::AppendChain;
pub use self::hash::{CommitHash, Digest, LogMark, TokenHash};
pub use self::json::{Json, Normal, NotNormal};
pub use self::meta::Meta;
pub use self::name::{
    Actor, AggregateName, CommandName, CorrelationId, EventName, NodeId, QueryName, Role, SagaId, SagaName,
    ServiceName,
};
pub(crate) use self::place::place;
pub use self::place::{Position, Version};
pub use self::precondition::{Precondition, Versions};

/// The longest id of an aggregate in bytes. Ids are parts of URLs, file names and NATS subjects.
pub const MAX_ID_LENGTH: usize = 128;

/// Expands to the pattern of a part of a stream's name: an id or a kind of aggregate, not `.` or `..`.
macro_rules! part_of_stream {
    () => {
        r"([A-Za-z0-9_:~-][A-Za-z0-9._:~-]{0,127}|\.[A-Za-z0-9_:~-][A-Za-z0-9._:~-]{0,126}|\.\.[A-Za-z0-9._:~-]{1,126})"
    };
}

/// The regular expression of the ids of aggregates.
pub const ID_PATTERN: &str = concat!("^", part_of_stream!(), "$");
/// The regular expression of the names of streams.
pub const STREAM_PATTERN: &str = concat!("^", part_of_stream!(), "/", part_of_stream!(), "$");

/// The kind of the streams that hold the journals of sagas.
pub(crate) const SAGA: &str = "saga";

/// The kind of the stream that holds the deployments.
pub(crate) const DEPLOYMENT: &str = "deployment";

/// The kind of the streams that hold the tokens of callers.
pub(crate) const TOKEN: &str = "token";

/// The name of a stream, the events of one aggregate: `order/0199…`. The part before the slash is the kind of
/// the aggregate, the part after it the id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline, extend("pattern" = STREAM_PATTERN))]
#[serde(try_from = "String", into = "String")]
pub struct StreamId(Arc<str>);

/// The text is not a valid id or kind of an aggregate.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("an id has 1 to {MAX_ID_LENGTH} characters out of A-Z a-z 0-9 . _ : ~ and -")]
pub struct InvalidId;

impl StreamId {
    /// Returns the stream of the aggregate with the kind `aggregate` and the id `id`.
    pub fn new(aggregate: &str, id: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:~-".contains(&byte);
        // These parts have a meaning of their own in URLs and paths.
        let leads_away = |part: &str| matches!(part, "." | "..");
        let valid = |part: &str| {
            (1..=MAX_ID_LENGTH).contains(&part.len()) && part.bytes().all(allowed) && !leads_away(part)
        };
        if !valid(aggregate) || !valid(id) {
            return Err(InvalidId);
        }
        Ok(Self(format!("{aggregate}/{id}").into()))
    }

    /// Returns a stream of the host's own by its whole name. The name is not checked, so each caller has a
    /// test that it can be parsed.
    pub(crate) fn of_host(name: &'static str) -> Self {
        Self(name.into())
    }

    /// Parses the output of [`StreamId::as_str`].
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let (aggregate, id) = text.split_once('/').ok_or(InvalidId)?;
        Self::new(aggregate, id)
    }

    /// Returns the kind of the aggregate: `order`.
    pub fn aggregate(&self) -> &str {
        self.0.split_once('/').map_or("", |(aggregate, _)| aggregate)
    }

    /// Returns the id of the aggregate.
    pub fn id(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, id)| id)
    }

    /// Returns the whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for StreamId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<StreamId> for String {
    fn from(stream: StreamId) -> Self {
        stream.as_str().to_owned()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a command. The same id never takes effect twice on a stream.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
#[serde(from = "String", into = "String")]
pub struct CommandId(Arc<str>);

impl CommandId {
    /// Returns a new id. New ids are ordered by time.
    pub fn new() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// Returns the id for a client's idempotency key: the key itself if it is a UUID (version 7 keeps the
    /// log's index compact), otherwise a UUID made from its hash.
    pub fn from_key(key: &str) -> Self {
        let id = Uuid::try_parse(key).unwrap_or_else(|_| hashed_uuid(&[key.as_bytes()]));
        Self(id.to_string().into())
    }

    /// Returns the id for an idempotency key of a caller. Each subject has its own keys, so that none can
    /// learn or take the answer to another one's command.
    pub fn from_key_of(caller: &Caller, key: &str) -> Self {
        let Some(subject) = &caller.subject else { return Self::from_key(key) };
        let parts = [subject.as_str(), key].map(str::as_bytes);
        let time = Uuid::try_parse(key).ok().and_then(|key| key.get_timestamp());
        let id = match time.map(|time| time.to_unix()) {
            // Ids in the order of time keep the log's index compact.
            Some((seconds, nanos)) => {
                let millis = seconds * 1000 + u64::from(nanos / 1_000_000);
                uuid::Builder::from_unix_timestamp_millis(millis, &hash_prefix(&parts)).into_uuid()
            }
            None => hashed_uuid(&parts),
        };
        Self(id.to_string().into())
    }

    /// Returns the id of the command of a saga's step.
    pub fn of_step(saga: &SagaId, step: &str) -> Self {
        Self(format!("{saga}/{step}").into())
    }

    /// Returns the id of the command that undoes a saga's step.
    pub fn of_undo(saga: &SagaId, step: &str) -> Self {
        Self(format!("{saga}/{step}/undo").into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the same text, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl Default for CommandId {
    fn default() -> Self {
        Self::new()
    }
}

impl From<String> for CommandId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<CommandId> for String {
    fn from(id: CommandId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns a UUID (version 8) made from the SHA-256 of the parts.
pub fn hashed_uuid(parts: &[&[u8]]) -> Uuid {
    Uuid::new_v8(hash_prefix(parts))
}

/// Returns the first bytes of the SHA-256 of the parts, each preceded by its length.
pub fn hash_prefix<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    std::array::from_fn(|index| digest[index])
}

/// An event that was decided and is not in the log yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// The name of the event.
    pub name: EventName,
    /// The content of the event.
    pub payload: Json,
}

/// Returns an event of the host's own streams for a variant of an enum. The variant must have fields: its
/// name is that of the event, and its fields are the payload.
pub(crate) fn event_of(variant: &impl Serialize) -> Result<NewEvent, serde_json::Error> {
    // serde writes such a variant as a map with one entry.
    let mut entry: BTreeMap<String, Json> = Json::of(variant)?.read()?;
    let (name, payload) = entry.pop_first().ok_or_else(|| serde::ser::Error::custom("a variant is empty"))?;
    Ok(NewEvent { name: name.into(), payload })
}

/// Parses the output of [`event_of`].
pub(crate) fn variant_of<T: DeserializeOwned>(name: &str, payload: &Json) -> Result<T, serde_json::Error> {
    Json::of(&BTreeMap::from([(name, payload)]))?.read()
}

/// An event in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The place of the event in the log.
    pub position: Position,
    /// The stream of the event.
    pub stream: StreamId,
    /// The version of the stream after the event.
    pub version: Version,
    /// The index of the event among those of its command, from 0.
    pub index: u32,
    /// The name of the event.
    pub name: EventName,
    /// The content of the event.
    pub payload: Json,
    /// The metadata that all events of its command share.
    pub meta: Arc<Meta>,
    /// The hash of the commit, which all events of its command in the stream share.
    pub hash: CommitHash,
}

impl Recorded {
    /// Returns the mark of the event.
    pub fn mark(&self) -> LogMark {
        LogMark { position: self.position, hash: self.hash }
    }

    /// Returns the id of the event.
    pub fn id(&self) -> String {
        event_id(&self.meta.command_id, self.index)
    }
}

/// Returns the id of a command's event: `<command id>/<index>`.
pub fn event_id(command: &CommandId, index: u32) -> String {
    format!("{command}/{index}")
}

/// The kind of a command.
#[derive(Clone, Debug)]
pub enum Intent {
    /// The component decides the command.
    Decide,
    /// The component decides how to undo an earlier command.
    Compensate {
        /// The command to undo.
        undone: CommandId,
        /// The reason for the undo.
        reason: Rejection,
    },
}

/// The sender of a command, and its cause.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The sender of the command.
    pub caller: Caller,
    /// The id that everything that follows from one request shares.
    pub correlation_id: CorrelationId,
    /// The id of the event that caused the command. `None`: a client sent it.
    pub causation_id: Option<Arc<str>>,
}

/// One request to one aggregate.
#[derive(Clone, Debug)]
pub struct Command {
    /// The id, which makes the command idempotent.
    pub id: CommandId,
    /// True if the id may have been used before, so that the stream must be searched for it. False only for a
    /// new id.
    pub repeatable: bool,
    /// True if the id is the key of a client: its first answer is kept, even if it records no events.
    pub keyed: bool,
    /// The stream of the aggregate.
    pub stream: StreamId,
    /// The name of the command. For a compensation, the name of the command to undo.
    pub name: CommandName,
    /// The content of the command.
    pub payload: Json,
    /// The kind of the command.
    pub intent: Intent,
    /// The condition on the version of the stream.
    pub precondition: Precondition,
    /// The sender and the cause of the command.
    pub origin: Origin,
    /// The chain of the journal of the saga that sends the command: what the command appends stands on it.
    /// `None`: no saga sends the command.
    pub journal: Option<AppendChain>,
}

impl Command {
    /// Returns the hash of the name and the payload for [`Meta::fingerprint`]. For a command with a key,
    /// payloads that are equal as JSON have equal hashes, however they are written.
    pub fn fingerprint(&self) -> u64 {
        let name = self.name.as_str().as_bytes();
        match self.keyed {
            true => u64::from_le_bytes(hash_prefix(&[name, self.payload.canonical().as_bytes()])),
            false => u64::from_le_bytes(hash_prefix(&[name, self.payload.as_str().as_bytes()])),
        }
    }
}

/// A business "no" of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error, schemars::JsonSchema)]
#[error("{code}: {message}")]
pub struct Rejection {
    /// The stable code.
    pub code: String,
    /// The reason, for humans.
    pub message: String,
    /// Further details, in a shape that depends on the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

impl Rejection {
    /// Returns a rejection without details.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), details: None }
    }

    /// Returns the rejection of a query or a command for an aggregate that does not exist.
    pub fn not_found(stream: &StreamId) -> Self {
        let (aggregate, id) = (stream.aggregate(), stream.id());
        Self::new("not-found", format!("There is no {aggregate} with the id {id}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_is_safe_in_urls_and_subjects() {
        let stream = StreamId::new("order", "A-1").unwrap();
        assert_eq!((stream.aggregate(), stream.id()), ("order", "A-1"));
        assert_eq!(StreamId::parse(stream.as_str()).unwrap(), stream);
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(MAX_ID_LENGTH + 1)] {
            assert!(StreamId::new("order", bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn the_patterns_of_ids_and_streams_say_what_is_valid() {
        let longest = |start: &str| start.to_owned() + &"x".repeat(MAX_ID_LENGTH - start.len());
        let texts =
            ["a", ".a", "..a", "...", "....a", "a.", "A-1_:~", "", ".", "..", "a/b", "a b", "ü", "a\n"];
        let long = ["", ".", "..", "..."].map(longest);
        let longer = long.each_ref().map(|text| text.clone() + "x");
        let matches = |pattern: &str, text: &str| {
            let schema = serde_json::json!({"pattern": pattern});
            jsonschema::is_valid(&schema, &serde_json::json!(text))
        };
        for id in texts.into_iter().chain(long.iter().chain(&longer).map(String::as_str)) {
            assert_eq!(matches(ID_PATTERN, id), StreamId::new("order", id).is_ok(), "{id:?}");
            let stream = format!("{id}/{id}");
            assert_eq!(matches(STREAM_PATTERN, &stream), StreamId::parse(&stream).is_ok(), "{id:?}");
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Entry {
        StepDone { step: String, numbers: Vec<f64> },
        Ended {},
        Bare,
    }

    #[test]
    fn a_variant_is_stored_as_an_event_and_read_again() {
        let step = "a \"b\": {c}".to_owned();
        for (entry, name, payload) in [
            (
                Entry::StepDone { step, numbers: vec![1.0, 2.5] },
                "step-done",
                r#"{"step":"a \"b\": {c}","numbers":[1.0,2.5]}"#,
            ),
            (Entry::Ended {}, "ended", "{}"),
        ] {
            let event = event_of(&entry).unwrap();
            assert_eq!((event.name.as_str(), event.payload.as_str()), (name, payload));
            assert_eq!(variant_of::<Entry>(name, &event.payload).unwrap(), entry);
        }
        assert!(event_of(&Entry::Bare).is_err(), "a variant without fields has no payload");
    }

    #[test]
    fn an_idempotency_key_always_gives_the_same_id() {
        assert_eq!(CommandId::from_key("cart 7"), CommandId::from_key("cart 7"));
        assert_ne!(CommandId::from_key("cart 7"), CommandId::from_key("cart 8"));
        let uuid = "01990000-0000-7000-8000-000000000001";
        assert_eq!(CommandId::from_key(uuid).as_str(), uuid);
    }

    #[test]
    fn each_caller_has_its_own_idempotency_keys() {
        let uuid = "01990000-0000-7000-8000-000000000001";
        let of = |caller: &Caller, key| CommandId::from_key_of(caller, key);
        let (ann, bob, nobody) = (Caller::named("ann"), Caller::named("bob"), Caller::default());
        for key in ["cart 7", uuid] {
            assert_eq!(of(&ann, key), of(&ann, key));
            assert_ne!(of(&ann, key), of(&bob, key));
            assert_eq!(of(&nobody, key), CommandId::from_key(key));
        }
        assert!(of(&ann, uuid).as_str().starts_with("01990000-0000-7"), "its time is kept");
    }

    #[test]
    fn the_hash_of_parts_depends_on_their_boundaries() {
        assert_ne!(hash_prefix::<8>(&[b"ab", b"c"]), hash_prefix::<8>(&[b"a", b"bc"]));
    }
}
