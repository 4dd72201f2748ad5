//! The answer to "who is it?": from what came with a request to its [`Caller`].
//!
//! | what came | who it is | file |
//! |---|---|---|
//! | `Authorization: Bearer kontor_…` | the subject and the roles of the token, which the log has | `tokens.rs` |
//! | `Authorization: Bearer eyJ…` | the subject and the roles in the claims of a JWT | `issuer.rs`, `keys.rs` |
//! | the cookie of a browser that signed in | the subject and the roles of the ID token | `oidc.rs`, `session.rs` |
//! | a client's certificate | its subject, with the roles of the configuration | here |
//! | a message of NATS without a token | `nats`, with the roles of the configuration | here |
//! | a request at the Unix socket without a token | `unix:<uid>`, with the roles of the configuration | here |
//! | nothing | nobody, who may use the routes for anyone | here |
//!
//! *Invariant:* a token that is not valid is an error, and so is a certificate with a name that no subject
//! may have. It never makes nobody of somebody. A cookie that is not valid is no evidence, since browsers
//! send it by themselves.

mod crypto;
mod error;
mod files;
mod first_token;
mod issuer;
mod keys;
mod names;
mod oidc;
mod options;
mod session;
#[cfg(test)]
mod tests;
mod token;
mod tokens;
mod uses;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quick_cache::sync::Cache;
use rustix::process::getuid;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use self::issuer::{Issuer, Verified, named_issuer};
use self::keys::Keys;
use self::names::{NATS, SOCKET, check_subject};
use self::oidc::Oidc;
use self::session::{Cookies, Session};
use self::tokens::Tokens;
use self::uses::Uses;
use crate::clock::SharedClock;
use crate::contract::SecretSource;
use crate::error::Chain;
use crate::log::{EventLog, Subscription};
use crate::model::{Actor, Caller, OPERATOR, Position, Role};

pub use self::error::{IdentityError, NotIdentified, TokenError};
pub use self::files::AuthFileError;
pub use self::keys::KeysError;
pub(crate) use self::oidc::CALLBACK;
pub use self::oidc::{Redirect, SignInError, SignedIn};
pub use self::options::{
    Algorithm, AuthOptions, AuthOptionsError, ClaimPath, IssuerOptions, KeysPlace, OidcOptions,
};
pub(crate) use self::session::SESSION_COOKIE;
pub use self::token::{NoRandomness, TokenText};
pub(crate) use self::tokens::TokenEvent;
pub use self::tokens::{NewToken, Revocation, TokenInfo};

/// The longest token that is read. A JWT with a hundred groups has half of that.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// The user id of root.
const ROOT: u32 = 0;
/// The largest number of verified JWTs that are remembered until they expire: some hundred bytes each.
const MAX_VERIFIED: usize = 10_000;

/// The things that came with one request and may identify its caller.
#[derive(Clone, Debug, Default)]
pub struct Evidence<'r> {
    /// The header `Authorization`.
    pub authorization: Option<&'r str>,
    /// The headers `Cookie`.
    pub cookies: Vec<&'r str>,
    /// The header `Kontor-CSRF`.
    pub csrf: Option<&'r str>,
    /// True if the request may have an effect, so that a cookie alone is not enough.
    pub has_effect: bool,
    /// The other end of the connection.
    pub peer: Option<&'r Peer>,
}

/// The other end of a connection, as far as the connection proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client with a certificate that the host has verified.
    Certificate {
        /// The name in the certificate.
        subject: Actor,
    },
    /// A program on this machine, at the host's Unix socket.
    Socket {
        /// The id of the program's user.
        uid: u32,
    },
    /// A client of the NATS servers, whose account may use the host's subjects.
    Nats,
}

/// The parts that [`Identity`] needs.
pub struct IdentityDeps {
    /// The log with the tokens.
    pub log: Arc<dyn EventLog>,
    /// The time, by which tokens expire.
    pub clock: SharedClock,
    /// The data directory.
    pub data: PathBuf,
    /// The section `[auth]`. `None`: requests are not authenticated.
    pub auth: Option<AuthOptions>,
}

/// Identifies callers.
pub struct Identity {
    /// None: requests are not authenticated.
    auth: Option<Auth>,
    tokens: Arc<Tokens>,
    uses: Arc<Uses>,
    /// The tasks that follow the log, the issuers and the uses of tokens. They end with the identity.
    _tasks: JoinSet<()>,
}

struct Auth {
    options: AuthOptions,
    issuers: Vec<Arc<Issuer>>,
    oidc: Option<Oidc>,
    /// By the SHA-256 of their text.
    verified: Cache<[u8; 32], (Verified, Arc<Issuer>)>,
}

impl Identity {
    /// Reads the tokens of the log and the keys of the issuers. Makes the first token, if nobody could sign
    /// in without it.
    pub async fn start(deps: IdentityDeps) -> Result<Self, IdentityError> {
        let IdentityDeps { log, clock, data, auth } = deps;
        crypto::install();
        let mut tasks = JoinSet::new();
        // Taken before the tokens are read: those made since are applied twice, which changes nothing.
        let position = *log.head().borrow();
        let (last_uses, uses) = Uses::open(&data, clock.clone());
        let tokens = Arc::new(Tokens::load(log.clone(), clock.clone(), &last_uses).await?);
        // On a log of its own, the host applies what it appends.
        if log.is_shared() {
            tasks.spawn(follow(log, tokens.clone(), position));
        }
        let uses = Arc::new(uses);
        tasks.spawn(uses.clone().follow(tokens.clone()));
        let auth = match auth {
            Some(options) => {
                first_token::make_if_needed(&options, &tokens, &data).await?;
                Some(Auth::open(options, &data, &clock, &mut tasks)?)
            }
            None => None,
        };
        Ok(Self { auth, tokens, uses, _tasks: tasks })
    }

    /// Returns whether requests are authenticated. If not, each one is the operator's.
    pub fn authenticates(&self) -> bool {
        self.auth.is_some()
    }

    /// Returns the caller of a request. Without `[auth]` each is the operator. With it, a request without
    /// evidence is nobody's, and evidence that is not valid is an error.
    pub async fn caller(&self, evidence: Evidence<'_>) -> Result<Caller, NotIdentified> {
        let Some(auth) = &self.auth else {
            return Ok(Caller::unauthenticated_operator());
        };
        match evidence.authorization {
            Some(authorization) => {
                let token = bearer(authorization)?;
                // The shape of the text says which kind it is: no JWT begins like a token of Kontor's own.
                match token::id_of(token) {
                    Some(id) => self.tokens.caller(id, token),
                    None => auth.of_jwt(token).await,
                }
            }
            None => match auth.session(&evidence.cookies) {
                Some(session) => {
                    if evidence.has_effect {
                        session.check_csrf(evidence.csrf)?;
                    }
                    Ok(session.caller())
                }
                None => evidence.peer.map_or(Ok(Caller::default()), |peer| auth.of_peer(peer)),
            },
        }
    }

    /// Begins the sign-in of a browser. `back`: the path to return to.
    pub async fn begin_sign_in(&self, back: Option<&str>) -> Result<Redirect, SignInError> {
        self.oidc()?.begin(back).await
    }

    /// Ends the sign-in of a browser: with the code of the issuer, or with its refusal.
    pub async fn finish_sign_in(
        &self,
        cookies: &[&str],
        state: Option<&str>,
        code: Result<&str, &str>,
    ) -> Result<Redirect, SignInError> {
        self.oidc()?.finish(cookies, state, code).await
    }

    /// Returns the values of `Set-Cookie` that sign a browser out.
    pub fn sign_out(&self) -> Result<Vec<String>, SignInError> {
        Ok(self.oidc()?.sign_out())
    }

    /// Returns the description of a caller, with the CSRF token of the session that it comes from.
    pub fn signed_in(&self, caller: &Caller, cookies: &[&str]) -> SignedIn {
        let session = self.auth.as_ref().and_then(|auth| auth.session(cookies));
        let session = session.filter(|session| Some(&session.subject) == caller.subject.as_ref());
        SignedIn {
            subject: caller.subject.clone(),
            roles: caller.roles.to_vec(),
            csrf: session.map(|session| session.csrf),
        }
    }

    fn oidc(&self) -> Result<&Oidc, SignInError> {
        self.auth.as_ref().and_then(|auth| auth.oidc.as_ref()).ok_or(SignInError::NotConfigured)
    }

    /// Makes a token. Returns its text, which is not kept.
    pub async fn make_token(&self, new: NewToken, by: &Caller) -> Result<(TokenText, TokenInfo), TokenError> {
        self.tokens.make(new, by).await
    }

    /// Revokes a token. One that is revoked already stays as it is.
    pub async fn revoke_token(
        &self,
        id: &str,
        reason: Option<String>,
        by: &Caller,
    ) -> Result<TokenInfo, TokenError> {
        self.tokens.revoke(id, reason, by).await
    }

    /// Returns all tokens, the oldest first. Those that ended long ago may be missing.
    pub fn tokens(&self) -> Vec<TokenInfo> {
        self.tokens.list()
    }

    /// Returns a sentence for each issuer whose keys cannot be read.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let issuers = self.auth.iter().flat_map(|auth| &auth.issuers);
        issuers.filter_map(|issuer| issuer.keys.warning()).collect()
    }

    /// Keeps the last uses of tokens for the next start.
    pub async fn close(&self) {
        self.uses.write(&self.tokens).await;
    }
}

impl Auth {
    fn open(
        options: AuthOptions,
        data: &Path,
        clock: &SharedClock,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, IdentityError> {
        let mut issuers = Vec::new();
        for issuer in &options.issuers {
            let keys = Keys::open(&issuer.issuer, &issuer.jwks, data, clock.clone());
            let keys =
                keys.map_err(|source| IdentityError::Keys { issuer: issuer.issuer.clone(), source })?;
            let issuer = Arc::new(Issuer::new(issuer.clone(), keys, clock.clone()));
            tasks.spawn(issuer.keys.clone().follow());
            issuers.push(issuer);
        }
        let oidc = options.oidc.as_ref().map(|oidc| open_oidc(oidc, &issuers, data, clock));
        let oidc = oidc.transpose().map_err(IdentityError::Oidc)?.flatten();
        Ok(Self { options, issuers, oidc, verified: Cache::new(MAX_VERIFIED) })
    }

    fn session(&self, cookies: &[&str]) -> Option<Session> {
        self.oidc.as_ref().filter(|_| !cookies.is_empty())?.session(cookies)
    }

    /// Returns the caller that a JWT names. One that was verified before is not verified again until it
    /// expires or the keys of its issuer change.
    async fn of_jwt(&self, text: &str) -> Result<Caller, NotIdentified> {
        let hash: [u8; 32] = Sha256::digest(text).into();
        let known = self.verified.get(&hash);
        if let Some((verified, _)) = known.filter(|(verified, issuer)| issuer.still_holds(verified)) {
            return Ok(verified.caller);
        }
        let name = named_issuer(text)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.name() == name);
        let issuer = issuer.ok_or(NotIdentified::Issuer)?;
        let verified = issuer.verify(text).await?;
        let caller = verified.caller.clone();
        self.verified.insert(hash, (verified, issuer.clone()));
        Ok(caller)
    }

    /// Returns the caller that a connection proves. Like a token, a certificate with a name that no subject
    /// may have is an error.
    fn of_peer(&self, peer: &Peer) -> Result<Caller, NotIdentified> {
        let AuthOptions { certificates, nats_roles, socket_roles, .. } = &self.options;
        let roles: Arc<[Role]> = match peer {
            Peer::Certificate { subject } => {
                check_subject(subject.as_str()).map_err(NotIdentified::Certificate)?;
                match certificates.get(subject.as_str()) {
                    Some(roles) => roles.as_slice().into(),
                    // Somebody, whose roles nobody has named.
                    None => Arc::default(),
                }
            }
            Peer::Nats if nats_roles.is_empty() => return Ok(Caller::default()),
            Peer::Nats => nats_roles.as_slice().into(),
            Peer::Socket { uid } if socket_roles.is_empty() => {
                let owns_the_host = [ROOT, getuid().as_raw()].contains(uid);
                if owns_the_host { [OPERATOR.into()].into() } else { Arc::default() }
            }
            Peer::Socket { .. } => socket_roles.as_slice().into(),
        };
        Ok(peer.name().map_or_else(Caller::default, |name| Caller { roles, ..Caller::named(name) }))
    }
}

impl Peer {
    /// Returns the name that the connection proves. `None`: a certificate has one that no subject may have.
    pub(crate) fn name(&self) -> Option<Actor> {
        match self {
            Self::Certificate { subject } => check_subject(subject.as_str()).ok().map(|()| subject.clone()),
            Self::Socket { uid } => Some(format!("{SOCKET}{uid}").into()),
            Self::Nats => Some(NATS.into()),
        }
    }
}

/// Returns the sign-in of browsers. The configuration was checked: its issuer is one of these.
fn open_oidc(
    options: &OidcOptions,
    issuers: &[Arc<Issuer>],
    data: &Path,
    clock: &SharedClock,
) -> io::Result<Option<Oidc>> {
    let Some(issuer) = issuers.iter().find(|issuer| issuer.name() == options.issuer) else {
        return Ok(None);
    };
    let key = options.session_key.as_ref().map(SecretSource::read).transpose().map_err(io::Error::other)?;
    let cookies = Cookies::open(data, key.as_ref(), options.is_secure())?;
    let secret = oidc::secret_of(options)?;
    Ok(Some(Oidc::new(options.clone(), issuer.clone(), secret, cookies, clock.clone())))
}

/// Returns the token in the header `Authorization` (RFC 6750, 2.1).
fn bearer(authorization: &str) -> Result<&str, NotIdentified> {
    let (scheme, token) = authorization.trim().split_once(' ').ok_or(NotIdentified::Scheme)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(NotIdentified::Scheme);
    }
    match token.trim_start() {
        token if token.len() > MAX_TOKEN_BYTES => Err(NotIdentified::TooLong(MAX_TOKEN_BYTES)),
        token => Ok(token),
    }
}

/// Applies the tokens that other hosts make and revoke. Ends when the log is closed.
async fn follow(log: Arc<dyn EventLog>, tokens: Arc<Tokens>, after: Position) {
    /// The pause before the next attempt to read the log.
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
    let mut events = Subscription::new(log, after);
    loop {
        match events.next().await {
            Ok(Some(page)) => tokens.apply(&page),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "failed to follow other hosts' tokens; retrying");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
