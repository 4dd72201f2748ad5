//! JSON that every reader understands alike.
//!
//! Some parsers take the first of two members with one name, some the last, and some refuse both; `1.0` is an
//! integer for JSON Schema and none for most languages. So a text is refused for the one, and rewritten for
//! the other, before anything is decided on it.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use super::{Json, as_integer};

/// The value of a text, and the text with integers written as such.
#[derive(Debug)]
pub struct Normal {
    /// The value.
    pub value: Value,
    /// The text, if it is another one than before.
    pub rewritten: Option<Json>,
}

/// The reason why a JSON text has no value that all readers agree on.
#[derive(Debug, thiserror::Error)]
#[error("{pointer} {source}")]
pub struct NotNormal {
    /// The place, as a JSON pointer (RFC 6901); empty if the whole text is meant.
    pub pointer: String,
    /// The cause: a member that is there more than once, a number that is out of range, or too many levels.
    pub source: serde_json::Error,
}

impl Json {
    /// Parses the text to its value, see [`Normal`].
    pub fn normalized(&self) -> Result<Normal, NotNormal> {
        let mut findings = Findings::default();
        let mut text = serde_json::Deserializer::from_str(self.as_str());
        let value = Reader(&mut findings).deserialize(&mut text).map_err(|source| NotNormal {
            pointer: findings.path.iter().rev().map(|name| format!("/{name}")).collect(),
            source,
        })?;
        // Err: impossible, because a value has a JSON text.
        let rewritten = if findings.integers { Self::of(&value).ok() } else { None };
        Ok(Normal { value, rewritten })
    }
}

#[derive(Default)]
struct Findings {
    /// True if an integer was written with a fraction or an exponent.
    integers: bool,
    /// The way to an error, from its place up.
    path: Vec<String>,
}

/// Reads one value.
struct Reader<'a>(&'a mut Findings);

impl Reader<'_> {
    /// Reads a value within this one, and notes the way to its error.
    fn within<T, E>(
        &mut self,
        place: impl FnOnce() -> String,
        read: impl FnOnce(Reader<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let read = read(Reader(self.0));
        if read.is_err() {
            self.0.path.push(place().replace('~', "~0").replace('/', "~1"));
        }
        read
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        let Some(number) = Number::from_f64(value) else { return Ok(Value::Null) };
        let integer = as_integer(&number);
        self.0.integers |= integer.is_some();
        Ok(Value::Number(integer.unwrap_or(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        let mut next = || {
            let place = values.len();
            let item = self.within(|| place.to_string(), |reader| items.next_element_seed(reader))?;
            Ok(item.map(|item| values.push(item)).is_some())
        };
        while next()? {}
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = self.within(|| name.clone(), |reader| members.next_value_seed(reader))?;
            match values.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(value)),
                Entry::Occupied(entry) => {
                    let twice = || Err(A::Error::custom("is there more than once"));
                    return self.within(|| entry.key().clone(), |_| twice());
                }
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn normalized(text: &str) -> Result<Normal, NotNormal> {
        Json::parse(text.to_owned()).unwrap().normalized()
    }

    #[test]
    fn integers_are_written_as_such_and_other_texts_stay_as_they_are() {
        for (text, rewritten) in [
            ("{ \"quantity\": 1, \"price\": 0.5 }", None),
            ("{ \"quantity\": 1.0 }", Some("{\"quantity\":1}")),
            ("[1e3, -2.50e1, 0.5]", Some("[1000,-25,0.5]")),
            ("-0.0", Some("0")),
            ("\"1.0\"", None),
            ("18446744073709551615", None),
        ] {
            let normal = normalized(text).unwrap();
            let expected: Value = serde_json::from_str(rewritten.unwrap_or(text)).unwrap();
            assert_eq!(normal.rewritten.as_ref().map(Json::as_str), rewritten, "{text}");
            assert_eq!(normal.value, expected, "{text}");
        }
        assert_eq!(normalized("[null, true, \"ä\"]").unwrap().value, json!([null, true, "ä"]));
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused_with_its_place() {
        for (text, place) in [
            ("{\"quantity\": 1, \"quantity\": -5}", "/quantity"),
            ("{\"quantity\": 1, \"quantity\": 1}", "/quantity"),
            ("{\"lines\": [{}, {\"a/b\": {\"c\": 1, \"\\u0063\": 2}}]}", "/lines/1/a~1b/c"),
        ] {
            let error = normalized(text).unwrap_err();
            assert_eq!(error.pointer, place, "{text}");
            assert!(error.source.to_string().starts_with("is there more than once"), "{error}");
        }
        assert!(normalized("{\"a\": {\"b\": 1}, \"b\": {\"b\": 1}}").is_ok());
    }

    #[test]
    fn a_text_without_a_value_is_refused() {
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        for (text, says) in [("[0, 1e999]", "number out of range"), (deep.as_str(), "recursion limit")] {
            assert!(normalized(text).unwrap_err().source.to_string().contains(says), "{text}");
        }
        assert_eq!(normalized("[0, 1e999]").unwrap_err().pointer, "/1");
    }
}
