//! The envelope of a signed statement: DSSE 1.0,
//! <https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md>.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE};
use serde::{Deserialize, Serialize};

use super::keys::{PublicKey, SigningKey};
use super::statement::{SignatureError, Statement};

/// The type of what is signed. It is part of the signed bytes, so that no other signature passes for one.
const PAYLOAD_TYPE: &str = "application/vnd.kontor.deployment+json";

/// The number of signatures that are tried: a team's keys, with room for a change of all of them.
const MAX_SIGNATURES: usize = 16;

/// The bytes of a signature without an envelope, as earlier versions of Kontor wrote it.
const BARE_BYTES: usize = 64;

/// A statement with its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    payload_type: String,
    /// The statement in base64.
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    /// A hint for humans: the public key. It proves nothing, so that every trusted key is tried.
    #[serde(default)]
    keyid: String,
    /// The signature in base64.
    sig: String,
}

impl Envelope {
    /// Signs a statement.
    pub fn seal(statement: &Statement, key: &SigningKey) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_vec(statement)?;
        let sig = BASE64.encode(key.sign(&signed_bytes(PAYLOAD_TYPE, &payload)));
        let signature = Signature { keyid: key.public().to_string(), sig };
        let payload_type = PAYLOAD_TYPE.to_owned();
        Ok(Self { payload_type, payload: BASE64.encode(payload), signatures: vec![signature] })
    }

    /// Reads an envelope. Fails with what to do about a signature of an earlier version.
    pub fn read(bytes: &[u8]) -> Result<Self, SignatureError> {
        let bare = bytes.len() == BARE_BYTES || decode(bytes).is_some_and(|bytes| bytes.len() == BARE_BYTES);
        match serde_json::from_slice(bytes) {
            Ok(envelope) => Ok(envelope),
            Err(_) if bare => Err(SignatureError::Bare),
            Err(_) => Err(SignatureError::NoEnvelope),
        }
    }

    /// Returns the envelope as one line of JSON.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Returns the statement, if one of the keys has signed it.
    pub fn open(&self, trusted: &[PublicKey]) -> Result<Statement, SignatureError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(SignatureError::OtherType(self.payload_type.clone()));
        }
        let payload = decode(self.payload.as_bytes()).ok_or(SignatureError::NoEnvelope)?;
        let signed = signed_bytes(&self.payload_type, &payload);
        let by_trusted = |signature: &Signature| {
            let bytes = decode(signature.sig.as_bytes()).unwrap_or_default();
            trusted.iter().any(|key| key.has_signed(&signed, &bytes))
        };
        match self.signatures.iter().take(MAX_SIGNATURES).any(by_trusted) {
            true => Ok(serde_json::from_slice(&payload)?),
            false => Err(SignatureError::Untrusted),
        }
    }
}

/// Returns the bytes that a signature covers: the pre-authentication encoding of DSSE.
fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Reads base64 in one of the two alphabets, as DSSE asks of readers.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    BASE64.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod fuzz {
    use std::sync::LazyLock;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::keys::new_key;
    use super::super::statement::tests::statement;
    use super::*;
    use crate::contract::fuzz::{is_sentence, near};
    use crate::error::with_causes;

    /// Parts of envelopes and of statements.
    const WORDS: &[&str] = &[
        "payloadType",
        "\"payload\":\"\"",
        "\"signatures\":[]",
        "{",
        "}",
        "[",
        "]",
        "null",
        "=",
        "-",
        "_",
        "\"expires\":\"9999-12-31T23:59:59Z\"",
        "\"version\":\"0.0.0\"",
        "1e999",
        "\u{e9}",
    ];

    static KEY: LazyLock<SigningKey> = LazyLock::new(|| new_key().unwrap());
    static ENVELOPE: LazyLock<Vec<u8>> =
        LazyLock::new(|| Envelope::seal(&statement(), &KEY).unwrap().text().unwrap().into_bytes());

    fn open(bytes: &[u8]) -> Result<Statement, SignatureError> {
        Envelope::read(bytes).and_then(|envelope| envelope.open(&[KEY.public()]))
    }

    proptest! {
        #[test]
        fn bytes_of_any_content_are_no_statement_that_was_not_signed(
            random in vec(any::<u8>(), 0..200), changed in near(vec![ENVELOPE.clone()], WORDS),
        ) {
            is_sentence(&with_causes(&open(&random).unwrap_err()))?;
            match open(&changed) {
                Ok(opened) => prop_assert_eq!(opened, statement()),
                Err(error) => is_sentence(&with_causes(&error))?,
            }
        }

        #[test]
        fn what_a_trusted_key_has_signed_is_a_statement_or_refused_with_a_sentence(
            payload in near(vec![serde_json::to_vec(&statement()).unwrap()], WORDS),
        ) {
            let sig = BASE64.encode(KEY.sign(&signed_bytes(PAYLOAD_TYPE, &payload)));
            let signatures = vec![Signature { keyid: String::new(), sig }];
            let (payload_type, payload) = (PAYLOAD_TYPE.to_owned(), BASE64.encode(payload));
            let envelope = Envelope { payload_type, payload, signatures };
            if let Err(error) = open(envelope.text().unwrap().as_bytes()) {
                is_sentence(&with_causes(&error))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::new_key;
    use super::super::statement::tests::statement;
    use super::*;

    #[test]
    fn the_signed_bytes_are_those_of_the_standard() {
        let example = signed_bytes("http://example.com/HelloWorld", b"hello world");
        assert_eq!(example, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_statement_is_read_only_if_a_trusted_key_has_signed_it() {
        let (ada, bo) = (new_key().unwrap(), new_key().unwrap());
        let envelope = Envelope::seal(&statement(), &ada).unwrap();
        let changed = |change: fn(&mut Envelope)| {
            let mut changed = envelope.clone();
            change(&mut changed);
            changed
        };
        let other_payload = changed(|envelope| envelope.payload = BASE64.encode(b"{}"));
        let other_type = changed(|envelope| "text/plain".clone_into(&mut envelope.payload_type));
        let no_signature = changed(|envelope| envelope.signatures.clear());
        let other_signature = changed(|envelope| envelope.signatures[0].sig = BASE64.encode([0; BARE_BYTES]));
        let both = [bo.public(), ada.public()];
        let url_safe = changed(|envelope| {
            envelope.signatures[0].sig = envelope.signatures[0].sig.replace('+', "-").replace('/', "_");
        });
        for (envelope, trusted, opened) in [
            (&envelope, &both[..], true),
            (&url_safe, &both, true),
            (&envelope, &both[1..], true),
            (&envelope, &both[..1], false),
            (&envelope, &[], false),
            (&other_payload, &both, false),
            (&other_type, &both, false),
            (&no_signature, &both, false),
            (&other_signature, &both, false),
        ] {
            assert_eq!(envelope.open(trusted).is_ok(), opened, "{envelope:?} {trusted:?}");
        }
        let read = Envelope::read(envelope.text().unwrap().as_bytes()).unwrap();
        assert_eq!(read.open(&both).unwrap(), statement());
    }

    #[test]
    fn a_signature_of_an_earlier_version_is_refused_with_what_to_do() {
        let bare = [7; BARE_BYTES];
        let text = format!("{}\n", BASE64.encode(bare));
        for bytes in [&bare[..], text.as_bytes()] {
            let error = Envelope::read(bytes).unwrap_err().to_string();
            assert!(error.contains("sign the component again"), "{error}");
        }
        for bytes in [&b""[..], b"{}", b"[1]", b"text"] {
            assert!(matches!(Envelope::read(bytes), Err(SignatureError::NoEnvelope)), "{bytes:?}");
        }
    }
}
