//! JSON text of values, and of enums whose variants are commands or events.
//!
//! serde writes such an enum as `{"stock-added":{"quantity":5}}`. The contract keeps the name and the payload
//! apart. They are joined and split here, without a tree of values in between.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Returns the JSON text of a value.
///
/// Panics if serde cannot write the value: a map whose keys are not strings, for example.
pub(crate) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| panic!("a value cannot be written as JSON: {error}"))
}

/// Returns the JSON of a value as bytes.
///
/// Panics if serde cannot write the value.
pub(crate) fn bytes(value: &impl Serialize) -> Vec<u8> {
    text(value).into_bytes()
}

/// Reads JSON. `subject` names it in the fault if it is not a `T`.
pub(crate) fn read<T: DeserializeOwned>(text: impl AsRef<[u8]>, subject: impl Display) -> Result<T, Error> {
    serde_json::from_slice(text.as_ref()).map_err(|error| unreadable(subject, &error))
}

/// Makes the fault of a text that cannot be read.
pub(crate) fn unreadable(subject: impl Display, error: &serde_json::Error) -> Error {
    Error::Fault(format!("{subject} cannot be read: {error}"))
}

/// Reads the variant called `name` from its payload.
pub(crate) fn read_variant<T: DeserializeOwned>(name: &str, payload: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(&format!(r#"{{"{name}":{payload}}}"#))
}

/// Splits a variant into its name and its payload.
///
/// Panics if the enum is not externally tagged or the variant has no payload.
pub(crate) fn write_variant(value: &impl Serialize) -> (String, String) {
    let text = text(value);
    let parts = text.strip_prefix("{\"").and_then(|rest| rest.strip_suffix('}'));
    match parts.and_then(|rest| rest.split_once("\":")) {
        Some((name, payload)) => (name.to_owned(), payload.to_owned()),
        None => {
            panic!("a command or an event is a variant with fields of an externally tagged enum, not {text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    enum Stock {
        StockAdded { quantity: u64, note: String },
        StockCounted {},
        Forgotten,
    }

    #[test]
    fn a_variant_is_split_into_its_name_and_its_payload() {
        let (name, payload) =
            write_variant(&Stock::StockAdded { quantity: 5, note: r#"a "quoted": }"#.to_owned() });
        assert_eq!(name, "stock-added");
        assert_eq!(payload, r#"{"quantity":5,"note":"a \"quoted\": }"}"#);

        let (name, payload) = write_variant(&Stock::StockCounted {});
        assert_eq!((name.as_str(), payload.as_str()), ("stock-counted", "{}"));
    }

    #[test]
    fn what_was_split_is_read_again() {
        for stock in [Stock::StockAdded { quantity: 5, note: String::new() }, Stock::StockCounted {}] {
            let (name, payload) = write_variant(&stock);
            assert_eq!(read_variant::<Stock>(&name, &payload).unwrap(), stock);
        }
    }

    #[test]
    fn unknown_names_and_unknown_fields_are_refused() {
        assert!(read_variant::<Stock>("stock-lost", "{}").is_err());
        assert!(read_variant::<Stock>("stock-counted", r#"{"by":"me"}"#).is_err());
    }

    #[test]
    #[should_panic(expected = "a variant with fields")]
    fn a_variant_without_fields_is_a_mistake_that_is_shown() {
        write_variant(&Stock::Forgotten);
    }
}
