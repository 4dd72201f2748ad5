//! JWTs (RFC 7519) of the configured issuers. Each claim that decides is checked here; the signature, the
//! audience and the issuer by `jsonwebtoken`, the times by the host's own clock.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::NotIdentified;
use super::keys::Keys;
use super::names::{MAX_ROLES, check_role, check_subject};
use super::options::{ClaimPath, IssuerOptions};
use crate::clock::SharedClock;
use crate::model::{Caller, Role};

/// An issuer of JWTs.
pub(super) struct Issuer {
    options: IssuerOptions,
    algorithms: Vec<Algorithm>,
    pub(super) keys: Arc<Keys>,
    clock: SharedClock,
}

/// The content of a JWT that was verified.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) caller: Caller,
    /// The time from which it is not valid any more, in milliseconds since 1970-01-01 UTC.
    until_ms: u64,
    /// The generation of the keys that it was verified with.
    generation: u64,
}

/// The claim by which the issuer is chosen, before anything is verified.
#[derive(Deserialize)]
struct IssuedBy {
    iss: String,
}

/// Returns the issuer that a JWT names, which nothing has verified yet.
pub(super) fn named_issuer(text: &str) -> Result<String, NotIdentified> {
    let claims: Result<IssuedBy, _> = jsonwebtoken::dangerous::insecure_decode_claims(text);
    let claims = claims.map_err(|error| match error.kind() {
        ErrorKind::Json(error) if error.is_data() => NotIdentified::Claim("iss".to_owned()),
        _ => NotIdentified::NoToken,
    });
    Ok(claims?.iss)
}

impl Issuer {
    pub(super) fn new(options: IssuerOptions, keys: Keys, clock: SharedClock) -> Self {
        use super::options::Algorithm as Named;
        let algorithm = |named: &Named| match named {
            Named::RS256 => Algorithm::RS256,
            Named::RS384 => Algorithm::RS384,
            Named::RS512 => Algorithm::RS512,
            Named::PS256 => Algorithm::PS256,
            Named::PS384 => Algorithm::PS384,
            Named::PS512 => Algorithm::PS512,
            Named::ES256 => Algorithm::ES256,
            Named::ES384 => Algorithm::ES384,
            Named::EdDSA => Algorithm::EdDSA,
        };
        let algorithms = options.algorithms.iter().map(algorithm).collect();
        Self { options, algorithms, keys: Arc::new(keys), clock }
    }

    pub(super) fn name(&self) -> &str {
        &self.options.issuer
    }

    /// Returns if what was verified is valid still.
    pub(super) fn still_holds(&self, verified: &Verified) -> bool {
        verified.until_ms > self.clock.now_ms() && verified.generation == self.keys.generation()
    }

    /// Verifies a JWT of this issuer.
    pub(super) async fn verify(&self, text: &str) -> Result<Verified, NotIdentified> {
        Ok(self.verify_for(text, &self.options.audience).await?.0)
    }

    /// Verifies a JWT of this issuer for other audiences. Returns its claims too.
    pub(super) async fn verify_for(
        &self,
        text: &str,
        audience: &[String],
    ) -> Result<(Verified, Value), NotIdentified> {
        // Err: an algorithm that nobody knows, such as `none`, or no header at all.
        let header = decode_header(text).map_err(|_| NotIdentified::Algorithm)?;
        if !self.algorithms.contains(&header.alg) {
            return Err(NotIdentified::Algorithm);
        }
        // Read before the keys, so that a change in between is noticed.
        let generation = self.keys.generation();
        let key = self.key(header.kid.as_deref(), header.alg).await?;
        let claims = self.decode(text, header.alg, &key, audience)?;
        let until_ms = self.check_times(&claims)?;
        Ok((Verified { caller: self.caller(&claims)?, until_ms, generation }, claims))
    }

    /// Returns the key of a JWT. Asks the issuer if it is not among those that are known.
    async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, NotIdentified> {
        let find = || self.keys.current().and_then(|keys| keys.find(id, algorithm).cloned());
        if let Some(key) = find() {
            return Ok(key);
        }
        self.keys.refresh().await;
        find().ok_or_else(|| match self.keys.current() {
            Some(_) => NotIdentified::Key,
            None => NotIdentified::KeysAway,
        })
    }

    /// Verifies the signature, the issuer and the audience. Returns the claims.
    fn decode(
        &self,
        text: &str,
        algorithm: Algorithm,
        key: &DecodingKey,
        audience: &[String],
    ) -> Result<Value, NotIdentified> {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["iss", "aud", "exp"]);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(audience);
        // See `check_times`.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let decoded = decode(text, key, &validation).map_err(|error| match error.into_kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidKeyFormat => NotIdentified::Signature,
            ErrorKind::InvalidAudience => NotIdentified::Audience,
            ErrorKind::InvalidIssuer => NotIdentified::Issuer,
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => NotIdentified::Algorithm,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                NotIdentified::Claim(claim)
            }
            _ => NotIdentified::NoToken,
        });
        Ok(decoded?.claims)
    }

    /// Checks `exp`, which must be there, and `nbf`, which may be. Returns the end of the time in
    /// milliseconds since 1970-01-01 UTC.
    fn check_times(&self, claims: &Value) -> Result<u64, NotIdentified> {
        let time_ms = |name: &str| match claims.get(name).map(Value::as_f64) {
            None => Ok(None),
            // Seconds since 1970-01-01 UTC, with a fraction or without. A number out of range is cut off.
            Some(Some(seconds)) => Ok(Some((seconds * 1_000.0) as u64)),
            Some(None) => Err(NotIdentified::Claim(name.to_owned())),
        };
        let (now_ms, leeway_ms) = (self.clock.now_ms(), self.options.leeway_s * 1_000);
        let expires_ms = time_ms("exp")?.ok_or_else(|| NotIdentified::Claim("exp".to_owned()))?;
        let until_ms = expires_ms.saturating_add(leeway_ms);
        if until_ms <= now_ms {
            return Err(NotIdentified::Expired);
        }
        match time_ms("nbf")? {
            Some(begins_ms) if begins_ms > now_ms.saturating_add(leeway_ms) => Err(NotIdentified::NotYet),
            _ => Ok(until_ms),
        }
    }

    fn caller(&self, claims: &Value) -> Result<Caller, NotIdentified> {
        let path = &self.options.subject;
        let malformed = || NotIdentified::Claim(path.as_str().to_owned());
        let subject = path.of(claims).and_then(Value::as_str).filter(|subject| !subject.is_empty());
        let subject = format!("{}{}", self.options.prefix, subject.ok_or_else(malformed)?);
        check_subject(&subject).map_err(|_| malformed())?;
        Ok(Caller { roles: self.roles(claims)?.into(), ..Caller::named(subject) })
    }

    /// Returns the roles in the claims. One that cannot be a role here is the issuer's own business.
    fn roles(&self, claims: &Value) -> Result<Vec<Role>, NotIdentified> {
        let Some(claim) = self.options.roles.as_ref().and_then(|path: &ClaimPath| path.of(claims)) else {
            return Ok(Vec::new());
        };
        let names: Vec<&str> = match claim {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            // As `scope` has them (RFC 8693, 4.2).
            Value::String(names) => names.split_whitespace().collect(),
            _ => Vec::new(),
        };
        let map = &self.options.roles_map;
        let mapped = |name: &str| match map.is_empty() {
            true => check_role(name).is_ok().then(|| Role::from(name)),
            false => map.get(name).cloned(),
        };
        let mut roles: Vec<Role> = names.into_iter().filter_map(mapped).collect();
        roles.sort();
        roles.dedup();
        if roles.len() > MAX_ROLES { Err(NotIdentified::TooManyRoles) } else { Ok(roles) }
    }
}
