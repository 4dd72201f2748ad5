//! The keys that sign deployments: Ed25519 (RFC 8032), as text in base64.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// The bytes of a public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// A key whose signatures are trusted.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicKey([u8; PUBLIC_KEY_BYTES]);

/// A private key. Its text is the PKCS#8 document (RFC 8410) in base64, and is never shown.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    text: String,
}

/// The reason why a text is no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is no public key.
    #[error("it is no public key: one has 44 characters of base64, as `kontor sign --new-key` prints it")]
    Public,
    /// The text is no signing key.
    #[error("it is no key to sign with: `kontor sign --new-key` makes one")]
    Signing,
    /// No key can be made.
    #[error("the operating system gives no random numbers")]
    NoRandomness,
}

/// Makes a new key.
pub fn new_key() -> Result<SigningKey, KeyError> {
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::NoRandomness)?;
    BASE64.encode(document).parse()
}

impl SigningKey {
    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// Returns the key that verifies the signatures.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Returns the private key as text, for the one file that it is kept in.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let document = BASE64.decode(text).map_err(|_| KeyError::Signing)?;
        let pair = Ed25519KeyPair::from_pkcs8(&document).map_err(|_| KeyError::Signing)?;
        Ok(Self { pair, text: text.to_owned() })
    }
}

impl PublicKey {
    /// Returns true if the key has made a signature of a message.
    pub(super) fn has_signed(self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_| KeyError::Public)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::Public)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = new_key().unwrap();
        let again: SigningKey = format!("{}\n", key.reveal()).parse().unwrap();
        assert_eq!(again.public(), key.public());
        assert!(key.public().has_signed(b"x", &again.sign(b"x")));
        assert!(!key.public().has_signed(b"y", &again.sign(b"x")));
        let json = serde_json::to_string(&key.public()).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key.public());
    }

    #[test]
    fn a_text_that_is_no_key_is_rejected() {
        let public = new_key().unwrap().public().to_string();
        for refused in ["", "key", &public[..40], &format!("{public}AAAA")] {
            assert_eq!(refused.parse::<PublicKey>(), Err(KeyError::Public), "{refused}");
        }
        for refused in ["", "key", &public] {
            assert_eq!(refused.parse::<SigningKey>().err(), Some(KeyError::Signing), "{refused}");
        }
    }
}
