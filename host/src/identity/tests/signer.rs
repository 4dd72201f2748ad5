//! An issuer of JWTs for tests, with every freedom to make wrong ones.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

/// A key of an issuer.
pub(super) enum Signer {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn es256() -> Self {
        let (scheme, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
        Self::Es256(EcdsaKeyPair::from_pkcs8(scheme, document.as_ref(), &random).unwrap())
    }

    pub(super) fn eddsa() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::EdDsa(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Es256(pair) => pair.public_key().as_ref(),
            Self::EdDsa(pair) => pair.public_key().as_ref(),
        }
    }

    /// Returns the public key in a key set.
    pub(super) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Es256(_) => {
                let (x, y) = self.public()[1..].split_at(32);
                let (x, y) = (BASE64.encode(x), BASE64.encode(y));
                json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": x, "y": y})
            }
            Self::EdDsa(_) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": BASE64.encode(self.public())})
            }
        }
    }

    /// Returns a JWT with this header and these claims.
    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        self.sign(&message(header, claims))
    }

    /// Returns a message with its signature.
    pub(super) fn sign(&self, message: &str) -> String {
        let signature = match self {
            Self::Es256(pair) => {
                pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
            }
            Self::EdDsa(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", BASE64.encode(signature))
    }

    /// Returns a JWT of HS256 whose secret is the public key, which everybody knows.
    pub(super) fn confused(&self, claims: &Value) -> String {
        let message = message(&json!({"alg": "HS256", "kid": "one"}), claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.public()), message.as_bytes());
        format!("{message}.{}", BASE64.encode(tag))
    }
}

/// Returns a header and claims, encoded and not signed yet.
pub(super) fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}
