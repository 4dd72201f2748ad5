//! Kontor's own tokens, which are events in the log: each has a stream `token/<id>`.
//!
//! | event | payload | meaning |
//! |---|---|---|
//! | `token-made` | `sha256`, `subject`, `roles`, `expires`, `note` | The token may be used from now on. |
//! | `token-revoked` | `reason` | The token is not valid any more. |
//!
//! *Invariant:* the known tokens follow from these streams alone, so every host of a cluster has the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::NotIdentified;
use super::error::TokenError;
use super::names::{check_roles, check_subject};
use super::token::{TokenText, is_hash_of};
use crate::clock::{SharedClock, Time};
use crate::error::Chain;
use crate::log::{Append, EventLog, MAX_PAGE, ReadError};
use crate::model::{
    Actor, Caller, Recorded, Role, StreamId, TOKEN, TokenHash, Version, event_of, variant_of,
};

/// The largest number of tokens that are valid at one time. Each takes some hundred bytes of memory.
const MAX_TOKENS: usize = 10_000;
/// The time after which an expired or revoked token is forgotten: until then a list shows it.
const MEMORY_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// The shortest time between two records of the use of a token.
pub(super) const USE_STEP_MS: u64 = 60_000;

/// An event of a token. The stored event's name is the variant's, its payload the variant's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TokenEvent {
    TokenMade {
        sha256: TokenHash,
        subject: Actor,
        roles: Arc<[Role]>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Time>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    TokenRevoked {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// The request for a new token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewToken {
    /// The user or program that is to use it.
    pub subject: Actor,
    /// The roles of the subject.
    pub roles: Vec<Role>,
    /// The time from which it is not valid any more. `None`: it is valid until it is revoked.
    pub expires: Option<Time>,
    /// The purpose.
    pub note: Option<String>,
}

/// A token as a list shows it. The secret is not known to the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TokenInfo {
    /// The id.
    pub id: String,
    /// The user or program that uses it.
    pub subject: Actor,
    /// The roles of the subject.
    pub roles: Vec<Role>,
    /// The purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The time at which it was made.
    pub made: Time,
    /// The operator who made it.
    pub made_by: Actor,
    /// The time from which it is not valid any more; missing if it is valid until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// The last use at this host, to the minute; missing if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Time>,
    /// Its end, if an operator has revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

/// The revocation of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Revocation {
    /// The time.
    pub at: Time,
    /// The operator.
    pub by: Actor,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A token that the log has.
#[derive(Clone)]
struct Token {
    version: Version,
    sha256: TokenHash,
    caller: Caller,
    made: Time,
    made_by: Actor,
    expires: Option<Time>,
    note: Option<String>,
    revoked: Option<Revocation>,
    /// The last use in milliseconds since 1970-01-01 UTC. 0: none is known.
    last_used_ms: Arc<AtomicU64>,
}

/// The tokens of the log.
pub(super) struct Tokens {
    log: Arc<dyn EventLog>,
    clock: SharedClock,
    known: RwLock<HashMap<String, Arc<Token>>>,
    /// Held while a token is made or revoked, so that their number stays within its bound.
    writing: Mutex<()>,
}

impl Token {
    /// Fails if the token is not valid now.
    fn check(&self, now_ms: u64) -> Result<(), NotIdentified> {
        if self.revoked.is_some() {
            return Err(NotIdentified::Revoked);
        }
        match self.expires {
            Some(expires) if expires.0 <= now_ms => Err(NotIdentified::Expired),
            _ => Ok(()),
        }
    }

    /// Returns the time from which the token is not valid any more, as far as it is known.
    fn end_ms(&self) -> Option<u64> {
        let revoked = self.revoked.as_ref().map(|revocation| revocation.at);
        revoked.into_iter().chain(self.expires).map(|time| time.0).min()
    }

    /// Records a use, at most once a minute.
    fn mark_used(&self, now_ms: u64) {
        if self.last_used_ms.load(Ordering::Relaxed).saturating_add(USE_STEP_MS) <= now_ms {
            self.last_used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    fn info(&self, id: &str) -> TokenInfo {
        let last_used_ms = self.last_used_ms.load(Ordering::Relaxed);
        TokenInfo {
            id: id.to_owned(),
            subject: self.caller.actor(),
            roles: self.caller.roles.to_vec(),
            note: self.note.clone(),
            made: self.made,
            made_by: self.made_by.clone(),
            expires: self.expires,
            last_used: (last_used_ms > 0).then_some(Time(last_used_ms)),
            revoked: self.revoked.clone(),
        }
    }
}

impl Tokens {
    /// Reads the tokens of the log. `uses`: the last use of each, in milliseconds since 1970-01-01 UTC.
    pub(super) async fn load(
        log: Arc<dyn EventLog>,
        clock: SharedClock,
        uses: &HashMap<String, u64>,
    ) -> Result<Self, ReadError> {
        let tokens = Self { log, clock, known: RwLock::default(), writing: Mutex::default() };
        let mut after = None;
        loop {
            let streams = tokens.log.streams(TOKEN, after.as_ref(), MAX_PAGE).await?;
            for (stream, _) in &streams {
                tokens.read(stream).await?;
            }
            match streams.last() {
                Some((last, _)) => after = Some(last.clone()),
                None => break,
            }
        }
        for (id, token) in tokens.snapshot() {
            let last_used_ms = uses.get(&id).copied().unwrap_or_default();
            token.last_used_ms.store(last_used_ms, Ordering::Relaxed);
        }
        Ok(tokens)
    }

    /// Reads the events of one token. There are two at most.
    async fn read(&self, stream: &StreamId) -> Result<(), ReadError> {
        self.apply(&self.log.read(stream, Version::START, MAX_PAGE).await?);
        Ok(())
    }

    /// Applies the events of tokens among these. One that is applied already changes nothing.
    pub(super) fn apply(&self, events: &[Recorded]) {
        for event in events.iter().filter(|event| event.stream.aggregate() == TOKEN) {
            match variant_of(event.name.as_str(), &event.payload) {
                Ok(happened) => self.happen(event, happened),
                // A newer host may write events that this one does not know.
                Err(error) => tracing::error!(
                    error = %Chain(&error), stream = %event.stream, version = %event.version,
                    "ignoring an event of a token that cannot be read"
                ),
            }
        }
    }

    fn happen(&self, event: &Recorded, happened: TokenEvent) {
        let (id, version) = (event.stream.id(), event.version);
        let (at, by) = (Time(event.meta.time_ms), event.meta.actor.clone());
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(id);
        if before.is_some_and(|token| token.version >= version) {
            return;
        }
        let token = match (happened, before) {
            (TokenEvent::TokenMade { sha256, subject, roles, expires, note }, _) => {
                let caller = Caller { roles, ..Caller::named(subject.shared()) };
                let last_used_ms = Arc::default();
                let (made, made_by) = (at, by);
                Token { version, sha256, caller, made, made_by, expires, note, revoked: None, last_used_ms }
            }
            (TokenEvent::TokenRevoked { reason }, Some(token)) => {
                Token { version, revoked: Some(Revocation { at, by, reason }), ..Token::clone(token) }
            }
            // A token that has been forgotten.
            (TokenEvent::TokenRevoked { .. }, None) => return,
        };
        known.insert(id.to_owned(), Arc::new(token));
    }

    /// Returns the caller who sends a token with this id. A wrong secret is answered like a token that does
    /// not exist.
    pub(super) fn caller(&self, id: &str, text: &str) -> Result<Caller, NotIdentified> {
        let token = self.get(id).filter(|token| is_hash_of(token.sha256, text));
        let token = token.ok_or(NotIdentified::Unknown)?;
        let now_ms = self.clock.now_ms();
        token.check(now_ms)?;
        token.mark_used(now_ms);
        Ok(token.caller.clone())
    }

    /// Makes a token. Returns its text, which is not kept.
    pub(super) async fn make(
        &self,
        new: NewToken,
        by: &Caller,
    ) -> Result<(TokenText, TokenInfo), TokenError> {
        let NewToken { subject, mut roles, expires, note } = new;
        roles.sort();
        roles.dedup();
        check_subject(subject.as_str()).map_err(|why| TokenError::Invalid(format!("{subject:?} {why}")))?;
        check_roles(&roles).map_err(TokenError::Invalid)?;
        let now_ms = self.clock.now_ms();
        if expires.is_some_and(|expires| expires.0 <= now_ms) {
            return Err(TokenError::TimePassed);
        }
        let _guard = self.writing.lock().await;
        self.forget(now_ms);
        if self.valid(now_ms).count() >= MAX_TOKENS {
            return Err(TokenError::TooMany(MAX_TOKENS));
        }
        let text = TokenText::new()?;
        let sha256 = TokenHash::of(text.reveal());
        let happened = TokenEvent::TokenMade { sha256, subject, roles: roles.into(), expires, note };
        self.record(text.id(), Version::START, happened, by).await?;
        let info = self.get(text.id()).map(|token| token.info(text.id()));
        Ok((text, info.ok_or(TokenError::NotFound)?))
    }

    /// Revokes a token. One that is revoked already stays as it is.
    pub(super) async fn revoke(
        &self,
        id: &str,
        reason: Option<String>,
        by: &Caller,
    ) -> Result<TokenInfo, TokenError> {
        let _guard = self.writing.lock().await;
        let token = self.get(id).ok_or(TokenError::NotFound)?;
        if token.revoked.is_none() {
            self.record(id, token.version, TokenEvent::TokenRevoked { reason }, by).await?;
        }
        Ok(self.get(id).ok_or(TokenError::NotFound)?.info(id))
    }

    /// Appends an event to the stream of a token and applies it.
    async fn record(
        &self,
        id: &str,
        expected: Version,
        happened: TokenEvent,
        by: &Caller,
    ) -> Result<(), TokenError> {
        let event = event_of(&happened).map_err(TokenError::Encode)?;
        let stream = StreamId::new(TOKEN, id).map_err(|_| TokenError::NotFound)?;
        let append = Append::of_host(stream.clone(), expected, event, self.clock.now_ms(), by);
        self.log.append(vec![append]).await.map_err(TokenError::Append)?;
        Ok(self.read(&stream).await?)
    }

    /// Returns all tokens that are not forgotten, the oldest first.
    pub(super) fn list(&self) -> Vec<TokenInfo> {
        let mut list: Vec<_> = self.snapshot().map(|(id, token)| token.info(&id)).collect();
        list.sort_by(|one, other| (one.made, &one.id).cmp(&(other.made, &other.id)));
        list
    }

    /// Returns if a token that is valid now has a role.
    pub(super) fn has_role(&self, role: &str) -> bool {
        self.valid(self.clock.now_ms()).any(|token| token.caller.has(role))
    }

    /// Returns the last use of each token that was used, in milliseconds since 1970-01-01 UTC.
    pub(super) fn uses(&self) -> HashMap<String, u64> {
        let uses = self.snapshot().map(|(id, token)| (id, token.last_used_ms.load(Ordering::Relaxed)));
        uses.filter(|(_, last_used_ms)| *last_used_ms > 0).collect()
    }

    fn get(&self, id: &str) -> Option<Arc<Token>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn snapshot(&self) -> impl Iterator<Item = (String, Arc<Token>)> + use<> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone().into_iter()
    }

    fn valid(&self, now_ms: u64) -> impl Iterator<Item = Arc<Token>> + use<> {
        self.snapshot().map(|(_, token)| token).filter(move |token| token.check(now_ms).is_ok())
    }

    /// Forgets the tokens that ended long ago. Their events stay in the log.
    fn forget(&self, now_ms: u64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, token| token.end_ms().is_none_or(|end_ms| end_ms + MEMORY_MS > now_ms));
    }
}
