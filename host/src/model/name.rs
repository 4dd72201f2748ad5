//! Names and ids as texts, each kind with a type of its own, so that one kind is never taken for another.

use std::sync::Arc;

use super::hash_prefix;

/// Defines kinds of text. They are shared: a copy costs no memory.
macro_rules! name {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        #[schemars(inline)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the same text, shared.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, text: &str) -> bool {
                *self.0 == *text
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, text: &&str) -> bool {
                *self.0 == **text
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.0, f)
            }
        }
    )+};
}

name! {
    /// The id of a saga: a UUID made from the event that started it and the saga's name.
    SagaId;
    /// The id of a host: a UUID that stays with its data directory.
    NodeId;
}

impl SagaId {
    /// Returns the id of the saga that an event starts: the same every time, and ordered by the event's time.
    pub fn started_by(event_id: &str, saga: &str, time_ms: u64) -> Self {
        let hash = hash_prefix::<10>(&[event_id.as_bytes(), saga.as_bytes()]);
        let time = uuid::Builder::from_unix_timestamp_millis(time_ms, &hash);
        time.into_uuid().to_string().into()
    }
}
