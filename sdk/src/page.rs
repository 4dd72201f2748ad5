//! Pages of a list: the number of items, the place where a page starts, and the page itself.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The number of items on a page if the query does not say.
const DEFAULT: u32 = 50;

/// Maximum number of items to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageLimit(#[schemars(range(min = 1, max = 200))] u32);

impl PageLimit {
    /// The number of rows to read: one more than the page holds, which tells whether another page follows.
    pub fn rows(self) -> u32 {
        self.0 + 1
    }
}

impl Default for PageLimit {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub struct Page<T, C = String> {
    items: Vec<T>,
    /// The `after` of the next page; null on the last one.
    next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// Makes a page of [`PageLimit::rows`] rows or fewer. `cursor` returns the place of an item in the list.
    pub fn new(mut rows: Vec<T>, limit: PageLimit, cursor: impl FnOnce(&T) -> C) -> Self {
        let size = limit.0 as usize;
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(cursor);
        Self { items: rows, next }
    }
}

/// A place in a list that is ordered by `N` integers. Its text, `1700000000000.7`, is the `next` of one page
/// and the `after` of the following one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor<const N: usize>(pub [i64; N]);

impl<const N: usize> JsonSchema for Cursor<N> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Cursor{N}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Each text of 18 digits is an integer of 64 bits.
        let pattern = format!(r"^{}$", [r"-?[0-9]{1,18}"; N].join(r"\."));
        json_schema!({"type": "string", "pattern": pattern})
    }
}

impl<const N: usize> TryFrom<String> for Cursor<N> {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let numbers: Option<Vec<i64>> = text.split('.').map(|number| number.parse().ok()).collect();
        let place = numbers.and_then(|numbers| numbers.try_into().ok());
        place.map(Self).ok_or("`after` must be the `next` of another page")
    }
}

impl<const N: usize> From<Cursor<N>> for String {
    fn from(cursor: Cursor<N>) -> Self {
        cursor.to_string()
    }
}

impl<const N: usize> fmt::Display for Cursor<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|number| number.to_string()).join("."))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::schema;

    #[derive(Deserialize, JsonSchema)]
    struct List {
        #[serde(default)]
        limit: PageLimit,
    }

    #[test]
    fn a_page_has_a_limit_between_1_and_200_and_50_by_default() {
        let list: List = serde_json::from_value(json!({})).unwrap();
        assert_eq!(list.limit.rows(), 51);
        let list: List = serde_json::from_value(json!({"limit": 200})).unwrap();
        assert_eq!(list.limit.rows(), 201);
        assert_eq!(
            schema::of_input::<List>().get("properties").unwrap()["limit"],
            json!({
                "description": "Maximum number of items to return.",
                "type": "integer", "format": "uint32", "minimum": 1, "maximum": 200, "default": 50,
            })
        );
    }

    #[test]
    fn a_page_says_where_the_next_one_begins_unless_it_is_the_last() {
        let page = |rows: &[&str]| {
            let rows = rows.iter().map(|row| (*row).to_owned()).collect();
            serde_json::to_value(Page::new(rows, PageLimit(2), Clone::clone)).unwrap()
        };
        assert_eq!(page(&["a", "b", "c"]), json!({"items": ["a", "b"], "next": "b"}));
        assert_eq!(page(&["a", "b"]), json!({"items": ["a", "b"], "next": null}));
        assert_eq!(page(&[]), json!({"items": [], "next": null}));
    }

    #[test]
    fn a_cursor_reads_what_it_wrote_and_nothing_else() {
        let cursor = Cursor([1_700_000_000_000, -7]);
        assert_eq!(String::from(cursor), "1700000000000.-7");
        assert_eq!(Cursor::try_from(String::from(cursor)), Ok(cursor));
        let schema = schema::of_input::<Cursor<2>>();
        let pattern = schema.get("pattern").and_then(Value::as_str).unwrap();
        assert_eq!(pattern, r"^-?[0-9]{1,18}\.-?[0-9]{1,18}$");
        for text in ["", "7", "x.7", "7.x", "7.7.7"] {
            assert!(Cursor::<2>::try_from(text.to_owned()).is_err(), "{text:?} must be refused");
        }
        assert_eq!(schema.get("type"), Some(&json!("string")));
    }
}
