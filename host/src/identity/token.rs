//! The text of Kontor's own tokens: `kontor_<id>_<secret>`. The id is public, it names the token in lists and
//! in the log. The host keeps only the SHA-256 of the text: the secret is random, so a slow hash would add
//! nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;

use crate::model::TokenHash;

/// The start of every token, by which scanners of repositories find one that was published.
const PREFIX: &str = "kontor_";
/// The bytes of an id: enough that no two of all the tokens of a log are equal by chance.
const ID_BYTES: usize = 8;
/// The bytes of a secret: nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;

/// The whole text of a token. It is shown once, to its maker.
pub struct TokenText {
    id: String,
    text: String,
}

/// The operating system gives no random numbers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct NoRandomness;

impl TokenText {
    /// Makes a new token.
    pub(super) fn new() -> Result<Self, NoRandomness> {
        let id = hex::encode(random::<ID_BYTES>()?);
        let text = format!("{PREFIX}{id}_{}", BASE64.encode(random::<SECRET_BYTES>()?));
        Ok(Self { id, text })
    }

    /// Returns the id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the text, for the one reply that has it.
    pub(crate) fn reveal(&self) -> &str {
        &self.text
    }
}

/// Returns the id in the text of a token. None: the text is no token of Kontor's own.
pub(super) fn id_of(text: &str) -> Option<&str> {
    let (id, _) = text.strip_prefix(PREFIX)?.split_once('_')?;
    Some(id)
}

/// Returns random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Returns if a hash is that of a text, in a time that does not depend on the text.
pub(super) fn is_hash_of(hash: TokenHash, text: &str) -> bool {
    hash.as_bytes().ct_eq(TokenHash::of(text).as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_id_and_a_secret_of_its_own() {
        let (one, other) = (TokenText::new().unwrap(), TokenText::new().unwrap());
        assert_eq!(id_of(one.reveal()), Some(one.id()));
        assert_eq!(one.reveal().len(), "kontor_".len() + 16 + 1 + 43);
        assert_ne!(one.reveal(), other.reveal());
        assert!(is_hash_of(TokenHash::of(one.reveal()), one.reveal()));
        assert!(!is_hash_of(TokenHash::of(one.reveal()), other.reveal()));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in ["", "kontor", "kontor_", "kontor_abc", "Kontor_abc_def", "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(id_of(text), None, "{text}");
        }
        assert_eq!(id_of("kontor__"), Some(""), "an empty id is nobody's");
    }

    #[test]
    fn a_hash_is_the_hexadecimal_text_of_sha_256() {
        let hash = TokenHash::of("abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse::<TokenHash>().unwrap(), hash);
        for wrong in ["", "ba78", "zz"] {
            assert!(wrong.parse::<TokenHash>().is_err(), "{wrong}");
        }
    }
}
