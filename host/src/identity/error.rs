//! The errors of the identification of callers, and the problems that they become.

use std::io;
use std::path::PathBuf;

use super::names::MAX_ROLES;
use super::oidc::SignInError;
use super::token::NoRandomness;
use crate::contract::{Problem, ProblemCode};
use crate::error::Chain;
use crate::log::{AppendError, ReadError};

/// The reason why the evidence of a request identifies nobody. Each is a sentence for the caller, without a
/// full stop: it names no secret, and nothing that only the host knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIdentified {
    /// The header is not `Bearer` and a token.
    #[error("the header Authorization must be `Bearer` and a token")]
    Scheme,
    /// The token is longer than any that is accepted.
    #[error("the token has more than {0} bytes")]
    TooLong(usize),
    /// The text is no token of any kind.
    #[error("the token is neither one of Kontor's own nor a JWT")]
    NoToken,
    /// No token has this text.
    #[error("the token is unknown")]
    Unknown,
    /// An operator has revoked the token.
    #[error("the token was revoked")]
    Revoked,
    /// The time of the token is over.
    #[error("the token has expired")]
    Expired,
    /// The time of the token has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// A JWT of an issuer that the host does not know.
    #[error("the token's issuer (`iss`) is not one of the configuration")]
    Issuer,
    /// A JWT for others.
    #[error("the token is not for this host: none of its audiences (`aud`) is in the configuration")]
    Audience,
    /// A JWT with an algorithm that the issuer does not have.
    #[error("the token's algorithm (`alg`) is not one that its issuer is configured with")]
    Algorithm,
    /// A JWT with a key that the issuer does not have.
    #[error("the token is signed with a key that its issuer does not have")]
    Key,
    /// A JWT that was forged or damaged.
    #[error("the token's signature is wrong")]
    Signature,
    /// A JWT without a claim that it must have, or with one of another type.
    #[error("the token's claim `{0}` is missing or malformed")]
    Claim(String),
    /// A JWT with more roles than a caller may have.
    #[error(
        "the token has more than {MAX_ROLES} roles; the `roles_map` of its issuer can choose those that count"
    )]
    TooManyRoles,
    /// A client certificate whose name no subject may have. The text is the rest of the sentence.
    #[error("the name in the client's certificate {0}")]
    Certificate(&'static str),
    /// A request with the cookie of a session, without the proof that a page of this host sends it.
    #[error("the header Kontor-CSRF is not that of the session; GET /auth/me has it")]
    Csrf,
    /// The keys of the issuer could not be read yet.
    #[error("the keys of the token's issuer are not available at the moment")]
    KeysAway,
}

impl From<NotIdentified> for Problem {
    fn from(error: NotIdentified) -> Self {
        let code = match error {
            NotIdentified::KeysAway => ProblemCode::IssuerUnavailable,
            NotIdentified::Csrf => ProblemCode::WrongCsrfToken,
            _ => ProblemCode::InvalidToken,
        };
        Self::new(code, format!("The caller is not identified: {error}."))
    }
}

/// The reason why a token is not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A value of the request cannot be used: a sentence without a full stop.
    #[error("{0}")]
    Invalid(String),
    /// The token would have expired already.
    #[error("the time at which it expires has passed")]
    TimePassed,
    /// There are as many tokens as there may be.
    #[error("there are {0} valid tokens, as many as there may be; revoke those that nobody uses")]
    TooMany(usize),
    /// There is no token with the id.
    #[error("there is no token with this id")]
    NotFound,
    /// No secret can be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The event cannot be written as JSON.
    #[error("the event of the token has no JSON form")]
    Encode(#[source] serde_json::Error),
    /// The log does not take the event.
    #[error(transparent)]
    Append(AppendError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match &error {
            TokenError::Invalid(why) => Self::new(ProblemCode::InvalidPayload, format!("{why}.")),
            TokenError::TimePassed => Self::new(ProblemCode::TimePassed, format!("{error}.")),
            TokenError::TooMany(_) => Self::new(ProblemCode::TooManyTokens, format!("{error}.")),
            TokenError::NotFound => Self::not_found("There is no token with this id."),
            TokenError::Append(error) => error.into(),
            TokenError::Read(error) => error.into(),
            TokenError::NoRandomness(_) | TokenError::Encode(_) => {
                Self::internal().with_log_text(Chain(&error).to_string())
            }
        }
    }
}

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        let detail = format!("Nobody is signed in: {error}.");
        match &error {
            SignInError::NotConfigured => Self::not_found(format!("{error}.")),
            SignInError::Busy => Self::busy(),
            SignInError::Away(source) => {
                let text = Chain(&**source).to_string();
                Self::new(ProblemCode::IssuerUnavailable, detail).with_log_text(text)
            }
            SignInError::Token(NotIdentified::KeysAway) => Self::new(ProblemCode::IssuerUnavailable, detail),
            SignInError::NotBegun
            | SignInError::Refused(_)
            | SignInError::Answer(_)
            | SignInError::Token(_) => Self::new(ProblemCode::SignInFailed, detail),
            SignInError::NoRandomness(_) | SignInError::Encode(_) | SignInError::Stopped(_) => {
                Self::internal().with_log_text(Chain(&error).to_string())
            }
        }
    }
}

/// The reason why callers cannot be identified at all, so that the host does not start.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The tokens in the log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The first token cannot be made.
    #[error("the first token cannot be made")]
    FirstToken(#[from] TokenError),
    /// The file of the first token cannot be written.
    #[error("the first token cannot be written to {}", .file.display())]
    WriteToken {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The secrets of the sign-in cannot be read or made.
    #[error("auth.oidc cannot be used")]
    Oidc(#[source] io::Error),
    /// The keys of an issuer are in a file that cannot be used.
    #[error("the keys of the issuer {issuer} cannot be used")]
    Keys {
        /// The issuer.
        issuer: String,
        /// The cause.
        source: super::keys::KeysError,
    },
}
