//! Names and ids: texts of different types, so that one kind cannot be confused with another.

use std::sync::Arc;

use super::hash_prefix;

/// Defines types of text. Clones share the text.
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
    /// The id of a saga: a UUID made from the event that started it, its service and its name.
    SagaId;
    /// The id of a host: a UUID that stays with its data directory.
    NodeId;
    /// The name of a service. The name of a saga does not fit:
    ///
    /// ```compile_fail,E0308
    /// use kontor::model::{SagaName, ServiceName};
    ///
    /// let service: ServiceName = SagaName::from("place-order");
    /// ```
    ServiceName;
    /// The name of a kind of aggregate, which is the first part of its streams' names.
    AggregateName;
    /// The name of a command.
    CommandName;
    /// The name of an event.
    EventName;
    /// The name of a saga.
    SagaName;
    /// The name of a query.
    QueryName;
    /// The name recorded with a command or an operator's act.
    Actor;
    /// A role of a caller: `clerk`, or one of the host's own.
    Role;
    /// The id that a request shares with everything that follows from it.
    CorrelationId;
}

impl SagaId {
    /// Returns the id of the saga that an event starts: the same every time, and ordered by the event's time.
    pub fn started_by(event_id: &str, service: &ServiceName, saga: &SagaName, time_ms: u64) -> Self {
        let parts = [event_id, service.as_str(), saga.as_str()].map(str::as_bytes);
        let hash = hash_prefix::<10>(&parts);
        let time = uuid::Builder::from_unix_timestamp_millis(time_ms, &hash);
        time.into_uuid().to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_name_is_a_plain_text_in_json() {
        let name = SagaName::from("place-order");
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"place-order\"");
        assert_eq!(serde_json::from_str::<SagaName>("\"place-order\"").unwrap(), name);
        assert!(serde_json::from_str::<SagaName>("7").is_err());
        assert_eq!((name.to_string(), format!("{name:?}")), ("place-order".into(), "\"place-order\"".into()));
    }

    #[test]
    fn a_map_with_names_as_keys_can_be_searched_with_a_text() {
        let versions = HashMap::from([(ServiceName::from("order"), 1)]);
        assert_eq!(versions.get("order"), Some(&1));
    }

    #[test]
    fn an_event_always_starts_the_saga_with_the_same_id() {
        let of = |event, service: &str, saga: &str| {
            SagaId::started_by(event, &service.into(), &saga.into(), 1_700_000_000_000)
        };
        let id = |event, saga| of(event, "order", saga);
        assert_eq!(id("c/0", "place-order"), id("c/0", "place-order"));
        assert_ne!(id("c/0", "place-order"), of("c/0", "audit", "place-order"), "of another service");
        assert_eq!(id("c/0", "place-order"), "018bcfe5-6800-77ea-a8dc-d09ef62bc007");
        assert_ne!(id("c/0", "place-order"), id("c/0", "change-order"));
    }
}
