//! JSON as text.

mod normal;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

pub use self::normal::{Normal, NotNormal};

/// Valid JSON text. It is checked once, then shared: passing it on neither copies nor parses it.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Wraps a text. Fails if it is not JSON.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Self(raw.into()))
    }

    /// Returns the JSON of a value.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Self(raw.into()))
    }

    /// Returns `{}`.
    pub fn empty_object() -> Self {
        Self(RawValue::from_string("{}".to_owned()).unwrap_or_default().into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Returns the same JSON with spaces in place of line breaks, which are always between two tokens.
    pub fn on_one_line(self) -> Self {
        if !self.as_str().contains(['\n', '\r']) {
            return self;
        }
        RawValue::from_string(self.as_str().replace(['\n', '\r'], " ")).map_or(self, |raw| Self(raw.into()))
    }

    /// Returns a text that is the same for all texts of equal JSON: members are sorted, a number without a
    /// fraction is written as an integer, and there are no spaces.
    pub fn canonical(&self) -> String {
        fn integers(value: &mut Value) {
            match value {
                Value::Number(number) => {
                    if let Some(integer) = as_integer(number) {
                        *number = integer;
                    }
                }
                Value::Array(items) => items.iter_mut().for_each(integers),
                Value::Object(members) => members.values_mut().for_each(integers),
                Value::Null | Value::Bool(_) | Value::String(_) => {}
            }
        }
        // Err: a number is beyond the range of a double. The text itself is still one of its own.
        let Ok(mut value) = self.read::<Value>() else { return self.as_str().to_owned() };
        integers(&mut value);
        value.to_string()
    }

    /// Parses the text as a `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }
}

/// Returns a number that is written with a fraction or an exponent, and has none, as an integer. `None`: it
/// is written as an integer, has a fraction, or is so large that a double does not hold it exactly.
fn as_integer(number: &Number) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64().filter(|_| number.is_f64())?;
    (float.fract() == 0.0 && float.abs() <= EXACT).then(|| Number::from(float as i64))
}

impl schemars::JsonSchema for Json {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Json".into()
    }

    /// Any JSON.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        true.into()
    }
}

impl AsRef<[u8]> for Json {
    fn as_ref(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_json_has_one_canonical_text() {
        let canonical = |text: &str| Json::parse(text.to_owned()).unwrap().canonical();
        for (text, expected) in [
            ("{ \"b\": [1.0, 2e2], \"a\": \"\\u00e4\" }", "{\"a\":\"ä\",\"b\":[1,200]}"),
            (
                "[-0.0, 0.5, 18446744073709551615, 9007199254740993]",
                "[0,0.5,18446744073709551615,9007199254740993]",
            ),
            ("1e300", "1e+300"),
            ("1e999", "1e999"),
        ] {
            assert_eq!(canonical(text), expected);
        }
        assert_ne!(canonical("9007199254740993"), canonical("9007199254740992"));
    }
}
