//! Hashes: SHA-256, as 64 hexadecimal digits in text and JSON.

use sha2::{Digest as _, Sha256};

use super::Position;

/// Defines a type of hash, so that a hash of one thing cannot be confused with a hash of another.
macro_rules! hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Returns the 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Returns the first twelve hexadecimal digits, for humans.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..6])
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = hex::FromHexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
            }
        }
    };
}

hash! {
    /// The SHA-256 of a component's bytes, which is the identity of the component.
    Digest
}

impl Digest {
    /// Returns the digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

hash! {
    /// The SHA-256 of the text of a token, by which the host knows the token.
    TokenHash
}

impl TokenHash {
    /// Returns the hash of a text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }
}

hash! {
    /// The hash of a commit: the events of one command in one stream. It covers the hash of the commit before
    /// it, and so the whole log up to the commit.
    CommitHash
}

impl CommitHash {
    /// The hash before the first commit of every log: 32 zero bytes.
    pub const GENESIS: Self = Self([0; 32]);

    /// Returns the hash with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Default for CommitHash {
    fn default() -> Self {
        Self::GENESIS
    }
}

/// Names an event and everything before it: two logs that contain the same mark are the same up to there.
/// Whatever is derived from a log stores the mark of the last event that it has applied, and so recognizes
/// its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct LogMark {
    /// The position of the event.
    pub position: Position,
    /// The hash of the event's commit.
    pub hash: CommitHash,
}

impl LogMark {
    /// The mark before the first event, which every log contains.
    pub const START: Self = Self { position: Position::START, hash: CommitHash::GENESIS };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_hexadecimal_digits_in_text_and_json() {
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest = Digest::of(b"abc");
        assert_eq!((digest.to_string().as_str(), digest.short().as_str()), (text, &text[..12]));
        let hash: CommitHash = text.parse().unwrap();
        assert_eq!(hash, CommitHash::new(*digest.as_bytes()));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<CommitHash>(&json).unwrap(), hash);
        for bad in ["", &text[1..], &text.replace('b', "x")] {
            assert!(bad.parse::<CommitHash>().is_err(), "{bad}");
        }
    }
}
