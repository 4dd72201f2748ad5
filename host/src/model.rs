//! The words of the domain as types: commands, events, streams, versions, positions. No I/O.

mod name;
mod place;

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

pub use self::name::{
    Actor, AggregateName, CommandName, CorrelationId, EventName, NodeId, QueryName, SagaId, SagaName,
    ServiceName,
};
pub(crate) use self::place::place;
pub use self::place::{Position, Version};

/// The longest aggregate id in bytes. Ids stand in URLs, file names and NATS subjects.
pub const MAX_ID_LENGTH: usize = 128;

/// The kind of the streams that journals of sagas are in.
pub(crate) const SAGA: &str = "saga";

/// The kind of the stream that deployments are in.
pub(crate) const DEPLOYMENT: &str = "deployment";

/// JSON text that has been checked once and is shared from then on, never copied or parsed again on the way.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Checks that `text` is JSON.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Self(raw.into()))
    }

    /// The JSON of any value that serde can write.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Self(raw.into()))
    }

    /// `{}`
    pub fn empty_object() -> Self {
        Self(RawValue::from_string("{}".to_owned()).unwrap_or_default().into())
    }

    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The same JSON with spaces for line breaks, which in JSON only ever stand between two tokens.
    pub fn on_one_line(self) -> Self {
        if !self.as_str().contains(['\n', '\r']) {
            return self;
        }
        RawValue::from_string(self.as_str().replace(['\n', '\r'], " ")).map_or(self, |raw| Self(raw.into()))
    }

    /// Reads the text as a `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }
}

impl AsRef<[u8]> for Json {
    fn as_ref(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into()))
    }
}

/// Names one aggregate's events: `order/0199…`. The part before the slash is the kind of the aggregate, the rest its id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId(Arc<str>);

/// Why a stream cannot be called so.
#[derive(Debug, thiserror::Error)]
#[error("an id has 1 to {MAX_ID_LENGTH} characters out of A-Z a-z 0-9 . _ : ~ and -")]
pub struct InvalidId;

impl StreamId {
    /// The stream of the aggregate of kind `aggregate` with the id `id`.
    pub fn new(aggregate: &str, id: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:~-".contains(&byte);
        // What is only dots would lead elsewhere in a URL or a path.
        let leads_away = |part: &str| matches!(part, "." | "..");
        let valid = |part: &str| {
            (1..=MAX_ID_LENGTH).contains(&part.len()) && part.bytes().all(allowed) && !leads_away(part)
        };
        if !valid(aggregate) || !valid(id) {
            return Err(InvalidId);
        }
        Ok(Self(format!("{aggregate}/{id}").into()))
    }

    /// A stream of the host's own, by its whole name. It is not checked, so what calls it so has a test that it can be read.
    pub(crate) fn of_host(name: &'static str) -> Self {
        Self(name.into())
    }

    /// Reads what [`StreamId::as_str`] wrote.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let (aggregate, id) = text.split_once('/').ok_or(InvalidId)?;
        Self::new(aggregate, id)
    }

    /// The kind of the aggregate: `order`.
    pub fn aggregate(&self) -> &str {
        self.0.split_once('/').map_or("", |(aggregate, _)| aggregate)
    }

    /// The aggregate's id.
    pub fn id(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, id)| id)
    }

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

/// Identifies a command for ever: the same id never takes effect twice on a stream.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct CommandId(Arc<str>);

impl CommandId {
    /// A new id, ordered by time.
    pub fn new() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// The id that a client's idempotency key stands for: the key itself if it is a UUID (version 7 keeps the log's index
    /// compact), otherwise a UUID made from its hash.
    pub fn from_key(key: &str) -> Self {
        let id = Uuid::try_parse(key).unwrap_or_else(|_| hashed_uuid(&[key.as_bytes()]));
        Self(id.to_string().into())
    }

    /// The id of a saga's step.
    pub fn of_step(saga: &SagaId, step: &str) -> Self {
        Self(format!("{saga}/{step}").into())
    }

    /// The id of the command that undoes a saga's step.
    pub fn of_undo(saga: &SagaId, step: &str) -> Self {
        Self(format!("{saga}/{step}/undo").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, shared.
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

/// A UUID (version 8) made from the SHA-256 of the parts.
pub fn hashed_uuid(parts: &[&[u8]]) -> Uuid {
    Uuid::new_v8(hash_prefix(parts))
}

/// The first bytes of the SHA-256 of the parts, each preceded by its length.
pub fn hash_prefix<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    std::array::from_fn(|index| digest[index])
}

/// The SHA-256 of a component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An event that a component has decided on and the log has not seen yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    pub name: EventName,
    pub payload: Json,
}

/// An event of the host's own streams from the variant of an enum, all of whose variants have fields: the event is called
/// like the variant, and its payload are the fields.
pub(crate) fn event_of(variant: &impl Serialize) -> Result<NewEvent, serde_json::Error> {
    // `{"<name>":<fields>}`
    let tagged = serde_json::to_string(variant)?;
    let parts = tagged.strip_prefix("{\"").and_then(|rest| rest.strip_suffix('}')?.split_once("\":"));
    let (name, fields) = parts.ok_or_else(|| serde::ser::Error::custom("this is no variant with fields"))?;
    Ok(NewEvent { name: name.into(), payload: Json::parse(fields.to_owned())? })
}

/// Reads what [`event_of`] wrote.
pub(crate) fn variant_of<T: DeserializeOwned>(name: &str, payload: &Json) -> Result<T, serde_json::Error> {
    serde_json::from_str(&format!("{{\"{name}\":{}}}", payload.as_str()))
}

/// What all events of one command have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub command_id: CommandId,
    /// The command's name.
    pub command: CommandName,
    /// The hash of the command's payload: tells a repeated command from another one under the same id.
    pub fingerprint: u64,
    pub correlation_id: CorrelationId,
    /// The id of the event that led to the command, if it was not sent from outside.
    pub causation_id: Option<Arc<str>>,
    /// The component that decided; none for the host's own streams.
    pub digest: Option<Digest>,
    /// Milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    pub actor: Actor,
}

/// An event as the log has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub position: Position,
    pub stream: StreamId,
    pub version: Version,
    /// The event's place among those of its command, from 0.
    pub index: u32,
    pub name: EventName,
    pub payload: Json,
    pub meta: Arc<Meta>,
}

impl Recorded {
    pub fn id(&self) -> String {
        event_id(&self.meta.command_id, self.index)
    }
}

/// The id of a command's event: `<command id>/<index>`
pub fn event_id(command: &CommandId, index: u32) -> String {
    format!("{command}/{index}")
}

/// What a command asks of its aggregate.
#[derive(Clone, Debug)]
pub enum Intent {
    /// Decide it.
    Decide,
    /// Undo what the command with this id did.
    Compensate { undone: CommandId, reason: Rejection },
}

/// Who wants something, and what led to it.
#[derive(Clone, Debug)]
pub struct Origin {
    pub actor: Actor,
    pub correlation_id: CorrelationId,
    pub causation_id: Option<Arc<str>>,
}

/// One request to one aggregate.
#[derive(Clone, Debug)]
pub struct Command {
    pub id: CommandId,
    /// Whether the id may have been used before: then the stream is asked first. False only for an id just made.
    pub repeatable: bool,
    pub stream: StreamId,
    /// The command's name; for a compensation, the name of the command to undo.
    pub name: CommandName,
    pub payload: Json,
    pub intent: Intent,
    /// The version that the stream must have (If-Match).
    pub expected_version: Option<Version>,
    pub origin: Origin,
}

impl Command {
    /// Stands for the payload and the name in [`Meta::fingerprint`].
    pub fn fingerprint(&self) -> u64 {
        u64::from_le_bytes(hash_prefix(&[self.name.as_str().as_bytes(), self.payload.as_str().as_bytes()]))
    }
}

/// A business "no", with a stable code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Rejection {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

impl Rejection {
    /// A rejection without details.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), details: None }
    }

    pub fn not_found(stream: &StreamId) -> Self {
        let (aggregate, id) = (stream.aggregate(), stream.id());
        Self::new("not-found", format!("There is no {aggregate} with the id {id}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_are_what_urls_and_subjects_can_hold() {
        let stream = StreamId::new("order", "A-1").unwrap();
        assert_eq!((stream.aggregate(), stream.id()), ("order", "A-1"));
        assert_eq!(StreamId::parse(stream.as_str()).unwrap(), stream);
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(MAX_ID_LENGTH + 1)] {
            assert!(StreamId::new("order", bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn an_idempotency_key_always_gives_the_same_id() {
        assert_eq!(CommandId::from_key("cart 7"), CommandId::from_key("cart 7"));
        assert_ne!(CommandId::from_key("cart 7"), CommandId::from_key("cart 8"));
        let uuid = "01990000-0000-7000-8000-000000000001";
        assert_eq!(CommandId::from_key(uuid).as_str(), uuid);
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        assert_ne!(hash_prefix::<8>(&[b"ab", b"c"]), hash_prefix::<8>(&[b"a", b"bc"]));
    }
}
