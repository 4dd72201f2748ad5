//! JSON text of values, and of enums whose variants are commands or events.
//!
//! serde writes such an enum as `{"stock-added":{"quantity":5}}`. The contract keeps the name and the payload apart, so
//! they are joined and split here, without a tree of values in between.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Event;

/// The JSON text of a value. Panics, which is a fault, if serde cannot write it: a map whose keys are no strings, say.
pub(crate) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| panic!("a value cannot be written as JSON: {error}"))
}

/// The enum's variant called `name`, with its payload.
pub(crate) fn read_variant<T: DeserializeOwned>(name: &str, payload: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(&format!(r#"{{"{name}":{payload}}}"#))
}

/// An enum's variant as an event. Panics, which is a fault, if the enum is not written with the variant's name outside
/// or the variant has no payload.
pub(crate) fn write_variant(value: &impl Serialize) -> Event {
    let text = text(value);
    let parts = text.strip_prefix("{\"").and_then(|rest| rest.strip_suffix('}'));
    match parts.and_then(|rest| rest.split_once("\":")) {
        Some((name, payload)) => Event { name: name.to_owned(), payload: payload.to_owned() },
        None => panic!("an event is a variant with fields of an externally tagged enum, not {text}"),
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
        let event = write_variant(&Stock::StockAdded { quantity: 5, note: r#"a "quoted": }"#.to_owned() });
        assert_eq!(event.name, "stock-added");
        assert_eq!(event.payload, r#"{"quantity":5,"note":"a \"quoted\": }"}"#);

        let event = write_variant(&Stock::StockCounted {});
        assert_eq!((event.name.as_str(), event.payload.as_str()), ("stock-counted", "{}"));
    }

    #[test]
    fn what_was_split_is_read_again() {
        for stock in [Stock::StockAdded { quantity: 5, note: String::new() }, Stock::StockCounted {}] {
            let event = write_variant(&stock);
            assert_eq!(read_variant::<Stock>(&event.name, &event.payload).unwrap(), stock);
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
