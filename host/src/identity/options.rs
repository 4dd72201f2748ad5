//! The section `[auth]` of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::names::{MAX_SUBJECT_LENGTH, check_role, check_roles, check_subject};
use crate::contract::{HttpOrigin, SecretSource};
use crate::model::Role;

/// The largest number of issuers. Each is asked for its keys every few minutes.
const MAX_ISSUERS: usize = 16;
/// The largest difference of clocks that is made up for, in seconds.
const MAX_LEEWAY_S: u64 = 600;
/// The longest session in seconds: a month. Its roles are those of its beginning.
const MAX_SESSION_S: u64 = 30 * 24 * 60 * 60;

/// The section `[auth]`. Requests are authenticated if it is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthOptions {
    /// The issuers whose JWTs are accepted.
    pub issuers: Vec<IssuerOptions>,
    /// The sign-in of browsers. `None`: there is none.
    pub oidc: Option<OidcOptions>,
    /// The roles of clients with a certificate, by the subject of the certificate.
    pub certificates: BTreeMap<String, Vec<Role>>,
    /// The roles of requests over NATS without a token.
    pub nats_roles: Vec<Role>,
    /// The roles of requests at the Unix socket without a token.
    pub socket_roles: Vec<Role>,
}

/// One of the sections `[[auth.issuers]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerOptions {
    /// The claim `iss`, exactly.
    pub issuer: String,
    /// The accepted values of the claim `aud`.
    pub audience: Vec<String>,
    /// The place of the issuer's keys.
    pub jwks: KeysPlace,
    /// The accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// The path of the claim that has the roles. `None`: its tokens have no roles.
    #[serde(default)]
    pub roles: Option<ClaimPath>,
    /// The roles of the host and its services, by the issuer's. Empty: the issuer's roles are taken as they
    /// are.
    #[serde(default)]
    pub roles_map: BTreeMap<String, Role>,
    /// The path of the claim that has the subject.
    #[serde(default)]
    pub subject: ClaimPath,
    /// The text before each subject.
    #[serde(default)]
    pub prefix: String,
    /// The largest difference of the clocks of issuer and host.
    #[serde(default = "default_leeway_s")]
    pub leeway_s: u64,
}

fn default_leeway_s() -> u64 {
    60
}

/// The section `[auth.oidc]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcOptions {
    /// One of the issuers: it signs the browsers in, and its entry says how its ID tokens are verified.
    pub issuer: String,
    /// The name by which the issuer knows this host.
    pub client_id: String,
    /// The secret that the issuer has given to this host. `None`: it is a public client.
    #[serde(default)]
    pub client_secret: Option<SecretSource>,
    /// The scopes to ask for.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// The URL under which browsers reach this host, without a path.
    pub url: String,
    /// The secret that seals the cookies, the same for all hosts of a cluster. `None`: one of the data
    /// directory.
    #[serde(default)]
    pub session_key: Option<SecretSource>,
    /// The length of a session in seconds.
    #[serde(default = "default_session_s")]
    pub session_s: u64,
}

fn default_scopes() -> Vec<String> {
    vec!["openid".to_owned()]
}

/// A working day.
fn default_session_s() -> u64 {
    8 * 60 * 60
}

/// The algorithms of signatures, all of them with a public key. There is no other: a token that is not
/// signed, or signed with a shared secret, cannot be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// The place of an issuer's keys (JWKS, RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum KeysPlace {
    /// A URL.
    Url(String),
    /// A file.
    File(PathBuf),
}

impl From<String> for KeysPlace {
    fn from(text: String) -> Self {
        match text.starts_with("https://") || text.starts_with("http://") {
            true => Self::Url(text),
            false => Self::File(text.into()),
        }
    }
}

/// The path of a claim: `sub`, `realm_access.roles`. A dot leads into an object, unless the whole text is the
/// name of a claim: `https://shop.example/roles`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ClaimPath(String);

impl ClaimPath {
    /// Returns the claim of a JWT, if it is there.
    pub(super) fn of<'c>(&self, claims: &'c serde_json::Value) -> Option<&'c serde_json::Value> {
        claims.get(&self.0).or_else(|| self.0.split('.').try_fold(claims, |inner, name| inner.get(name)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClaimPath {
    fn default() -> Self {
        Self("sub".to_owned())
    }
}

impl<T: Into<String>> From<T> for ClaimPath {
    fn from(path: T) -> Self {
        Self(path.into())
    }
}

/// A section `[auth]` that cannot be used: the key, and a sentence without a full stop.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("auth.{key}: {why}")]
pub struct AuthOptionsError {
    pub(crate) key: String,
    why: String,
}

impl AuthOptions {
    /// Fails if the section cannot be used.
    pub(crate) fn check(&self) -> Result<(), AuthOptionsError> {
        let error = |key: &str, why: String| AuthOptionsError { key: key.to_owned(), why };
        check_roles(&self.nats_roles).map_err(|why| error("nats_roles", why))?;
        check_roles(&self.socket_roles).map_err(|why| error("socket_roles", why))?;
        for (subject, roles) in &self.certificates {
            check_subject(subject).map_err(|why| error("certificates", format!("{subject:?} {why}")))?;
            check_roles(roles).map_err(|why| error("certificates", format!("{subject:?}: {why}")))?;
        }
        if self.issuers.len() > MAX_ISSUERS {
            return Err(error("issuers", format!("at most {MAX_ISSUERS} are allowed")));
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            let (name, before) = (&issuer.issuer, &self.issuers[..index]);
            issuer.check().map_err(|why| error("issuers", format!("{name:?}: {why}")))?;
            if before.iter().any(|other| other.issuer == *name) {
                return Err(error("issuers", format!("{name:?} is there twice")));
            }
            let alike = |other: &&IssuerOptions| {
                other.prefix.starts_with(&issuer.prefix) || issuer.prefix.starts_with(&other.prefix)
            };
            if let Some(other) = before.iter().find(alike) {
                return Err(error(
                    "issuers",
                    format!(
                        "{:?} and {name:?} may have users with the same name: give each a `prefix`, \
                         such as \"staff:\", that is not the beginning of another one",
                        other.issuer
                    ),
                ));
            }
        }
        let names = self.issuers.iter().map(|issuer| issuer.issuer.as_str());
        self.oidc.iter().try_for_each(|oidc| oidc.check(names.clone())).map_err(|why| error("oidc", why))
    }
}

impl OidcOptions {
    fn check<'n>(&self, mut issuers: impl Iterator<Item = &'n str>) -> Result<(), String> {
        if !issuers.any(|issuer| issuer == self.issuer) {
            return Err(format!("the issuer {:?} has no section [[auth.issuers]]", self.issuer));
        }
        if self.client_id.is_empty() {
            return Err("`client_id` must not be empty".to_owned());
        }
        if !self.scopes.iter().any(|scope| scope == "openid") {
            return Err("`scopes` must have \"openid\"".to_owned());
        }
        if !(60..=MAX_SESSION_S).contains(&self.session_s) {
            return Err(format!("`session_s` must be from 60 to {MAX_SESSION_S}"));
        }
        check_url(&self.url)
    }

    /// Returns if browsers reach the host over https.
    pub(super) fn is_secure(&self) -> bool {
        self.url.starts_with("https://")
    }
}

impl IssuerOptions {
    fn check(&self) -> Result<(), String> {
        if self.issuer.is_empty() {
            return Err("`issuer` must not be empty".to_owned());
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            return Err("`audience` must name who the tokens are for".to_owned());
        }
        if self.algorithms.is_empty() {
            return Err("`algorithms` must name at least one, such as \"RS256\"".to_owned());
        }
        if self.leeway_s > MAX_LEEWAY_S {
            return Err(format!("`leeway_s` must be at most {MAX_LEEWAY_S}"));
        }
        if self.prefix.len() > MAX_SUBJECT_LENGTH / 2 || self.prefix.chars().any(char::is_control) {
            return Err(format!("`prefix` must have at most {} bytes", MAX_SUBJECT_LENGTH / 2));
        }
        self.roles_map.values().try_for_each(|role| check_role(role.as_str()))?;
        match &self.jwks {
            KeysPlace::Url(url) => check_url(url),
            KeysPlace::File(_) => Ok(()),
        }
    }
}

/// Fails if keys that come from a URL could be replaced on the way.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let uri: Option<Uri> = url.parse().ok();
    let Some(origin) = uri.as_ref().and_then(HttpOrigin::of) else {
        return Err(format!("{url:?} is no URL with a scheme, a host and no user"));
    };
    match origin.is_protected() {
        true => Ok(()),
        false => Err(format!("{url} must be https, because it is on another machine")),
    }
}

#[cfg(test)]
mod tests;
