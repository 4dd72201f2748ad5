//! One dead letter: the facts about a message that could not become a command, and what is kept of it.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::incoming::Incoming;
use super::subscribed::Received;
use crate::contract::{Problem, ProblemCode};
use crate::model::{Actor, Caller, Digest, Role};

/// The header with the facts about a dead letter.
pub(super) const ABOUT: &str = "Kontor-Dead-Letter";
/// The beginning that is kept of a payload that is too large: enough to recognize it.
const BEGINNING: usize = 1 << 10;
/// The space for the headers of the message, which are an extra.
const HEADER_BYTES: usize = 4 << 10;
/// The longest message id that is kept of a message that is too large.
const ID_CHARS: usize = 256;
/// The space for the names of the headers of a dead letter and for its own id.
const FRAME_BYTES: usize = 1 << 10;

/// A message that could not become a command.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeadLetter {
    /// The id of the dead letter: its sequence in the stream of dead letters.
    pub id: u64,
    /// The facts about the message.
    #[serde(flatten)]
    pub about: About,
    /// The payload of the message, as a string if it is no JSON; its beginning if `cut` is there.
    pub payload: Value,
    #[serde(skip)]
    raw: Bytes,
}

/// The facts about a message that could not become a command.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct About {
    /// The service that subscribes to the message.
    pub service: String,
    /// The aggregate of the command.
    pub aggregate: String,
    /// The command.
    pub command: String,
    /// The subject of the subscription, which may have wildcards.
    pub subscription: String,
    /// The subject of the message.
    pub subject: String,
    /// The message's id, which is the command's key.
    pub message_id: String,
    /// The caller of the command; missing if its token was not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<DeadLetterCaller>,
    /// The number of times that the message was delivered.
    pub deliveries: i64,
    /// The headers of the message, without its token, as far as there is space for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Present if the message is too large for a dead letter: only its beginning is kept, and it cannot be
    /// redriven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// The problem of the last delivery, as HTTP would have answered it.
    pub problem: Value,
}

/// The payload of a message that is too large for a dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cut {
    /// The size of the whole payload in bytes.
    pub bytes: u64,
    /// The SHA-256 of the whole payload.
    pub sha256: Digest,
}

/// The caller of the command of a dead letter. A redrive sends the command for the same caller, whose token
/// may have expired since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeadLetterCaller {
    /// The subject of the message's token, or `nats`; missing if it is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Actor>,
    /// The roles of the subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// The user for whom the subject said it acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Actor>,
}

impl DeadLetterCaller {
    pub(super) fn of(caller: &Caller) -> Self {
        let Caller { subject, roles, on_behalf_of, .. } = caller.clone();
        Self { subject, roles: roles.to_vec(), on_behalf_of }
    }

    fn caller(&self) -> Caller {
        let Self { subject, roles, on_behalf_of } = self.clone();
        Caller { subject, roles: roles.into(), on_behalf_of, via: None }
    }
}

impl DeadLetter {
    /// Reads a dead letter. Returns none if the message was not written by a host.
    pub(super) fn read(message: &StreamMessage) -> Option<Self> {
        let about = serde_json::from_str(message.headers.get(ABOUT)?.as_str()).ok()?;
        let payload = serde_json::from_slice(&message.payload);
        let payload = payload.unwrap_or_else(|_| String::from_utf8_lossy(&message.payload).into());
        Some(Self { id: message.sequence, about, payload, raw: message.payload.clone() })
    }

    /// Processes the message again.
    pub(super) async fn process(&self, incoming: &Incoming) -> Result<(), Problem> {
        let About { service, subscription, subject, message_id, caller, problem, cut, .. } = &self.about;
        if let Some(Cut { bytes, .. }) = cut {
            let detail = format!(
                "The message has {bytes} bytes, and only its beginning is kept: have it sent again, then \
                 discard this."
            );
            return Err(Problem::new(ProblemCode::PayloadTooLarge, detail));
        }
        let subscribed = incoming.find(&self.about).ok_or_else(|| {
            Problem::not_found(format!("{service} no longer subscribes to {subscription}."))
        })?;
        let caller = match caller {
            Some(sender) => sender.caller(),
            None if problem["code"] == ProblemCode::InvalidToken.name() => {
                let detail = "The message came with a token that was not valid, so its command has no \
                              caller: discard it, and have it sent again.";
                return Err(Problem::new(ProblemCode::InvalidToken, detail));
            }
            // An earlier version of Kontor has kept it.
            None => incoming.caller(None).await?,
        };
        let received = Received { subject, id: message_id, headers: None, payload: &self.raw };
        incoming.process(&subscribed, received, &caller).await
    }
}

/// Returns the headers of a message that a dead letter keeps, the shortest first.
pub(super) fn kept_headers(headers: Option<&HeaderMap>) -> BTreeMap<String, Vec<String>> {
    let named = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        let values: Vec<_> = values.iter().map(|value| value.as_str().to_owned()).collect();
        (name.to_string(), values)
    };
    let mut all: Vec<_> = headers.into_iter().flat_map(HeaderMap::iter).map(named).collect();
    // A token is a secret.
    all.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
    let bytes =
        |(name, values): &(String, Vec<String>)| name.len() + values.iter().map(String::len).sum::<usize>();
    all.sort_by_key(|header| (bytes(header), header.0.clone()));
    let mut left = HEADER_BYTES;
    all.into_iter()
        .take_while(|header| {
            let fits = bytes(header) <= left;
            left = left.saturating_sub(bytes(header));
            fits
        })
        .collect()
}

/// Returns the value of the header [`ABOUT`] and the payload of a dead letter, which together have at most
/// `room` bytes. The beginning of a message that has more is kept.
pub(super) fn fit(mut about: About, payload: &[u8], room: usize) -> (String, Bytes) {
    // This type always has a JSON form, and it has no line breaks.
    let text = |about: &About| serde_json::to_string(about).unwrap_or_default();
    let room = room.saturating_sub(FRAME_BYTES);
    let whole = text(&about);
    if whole.len() + payload.len() <= room {
        return (whole, Bytes::copy_from_slice(payload));
    }
    about.cut = Some(Cut { bytes: payload.len() as u64, sha256: Digest::of(payload) });
    let mut part = text(&about);
    if part.len() + BEGINNING > room {
        about.headers.clear();
        about.message_id = about.message_id.chars().take(ID_CHARS).collect();
        let Value::Object(problem) = &mut about.problem else { return (part, Bytes::new()) };
        problem.retain(|name, _| ["type", "title", "status", "code"].contains(&&**name));
        part = text(&about);
    }
    let left = room.saturating_sub(part.len()).min(BEGINNING).min(payload.len());
    (part, Bytes::copy_from_slice(&payload[..left]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn about() -> About {
        About {
            service: "parcels".to_owned(),
            aggregate: "parcel".to_owned(),
            command: "deliver".to_owned(),
            subscription: "carrier.delivered".to_owned(),
            subject: "carrier.delivered".to_owned(),
            message_id: "m".repeat(10_000),
            caller: None,
            deliveries: 1,
            headers: BTreeMap::from([("a".to_owned(), vec!["b".repeat(4_000)])]),
            cut: None,
            problem: json!({"code": "invalid-json", "status": 400, "detail": "x".repeat(10_000)}),
        }
    }

    #[test]
    fn a_dead_letter_has_the_whole_message_or_its_beginning() {
        for (bytes, room, kept, cut) in [
            (100, 30_000, 100, false),
            (10_000, 100_000, 10_000, false),
            (100_000, 100_000, BEGINNING, true),
            (100_000, 4_096, BEGINNING, true),
            (100, 4_096, 100, true),
            (100_000, 2_048, 0, true),
        ] {
            let payload = vec![b'x'; bytes];
            let (text, payload) = fit(about(), &payload, room);
            let read: About = serde_json::from_str(&text).unwrap();
            assert_eq!(read.cut.map(|cut| cut.bytes), cut.then_some(bytes as u64), "{bytes} in {room}");
            assert!(text.len() + payload.len() + FRAME_BYTES <= room, "{bytes} in {room}");
            assert!(payload.len() >= kept, "{bytes} in {room}");
            assert_eq!(read.problem["code"], "invalid-json");
        }
    }

    #[test]
    fn the_headers_are_kept_without_the_token() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer secret");
        headers.insert("Authorization", "Bearer secret");
        headers.insert("ce-id", "7");
        headers.append("ce-id", "8");
        headers.insert("Large", "x".repeat(HEADER_BYTES).as_str());
        let kept = kept_headers(Some(&headers));
        assert_eq!(kept, BTreeMap::from([("ce-id".to_owned(), vec!["7".to_owned(), "8".to_owned()])]));
        assert_eq!(kept_headers(None), BTreeMap::new());
    }
}
