//! The wire types of the host's own routes: parameters, request bodies and replies, once for the HTTP edge,
//! its OpenAPI document, the CLI and the testkit. A type of the domain that is sent as it is keeps its place
//! and is used from there.

mod audit;
mod commands;
mod dead_letters;
mod events;
mod gc;
mod plugins;
mod problems;
mod projections;
mod sagas;
mod status;
mod tokens;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::log::MAX_PAGE;

// These files hold wire types and nothing else, so that a new type needs no line here.
pub use self::audit::*;
pub use self::commands::*;
pub use self::dead_letters::*;
pub use self::events::*;
pub use self::gc::*;
pub use self::plugins::*;
pub use self::problems::*;
pub use self::projections::*;
pub use self::sagas::*;
pub use self::status::*;
pub use self::tokens::*;

/// The longest reason or note that an operator may give, in characters. It stays in the log.
pub const MAX_REASON_LENGTH: usize = 1_000;

/// A whole list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T, P> {
    /// The items.
    pub items: Vec<T>,
    /// The value of `after` for the next page; null on the last page.
    pub next: Option<P>,
}

/// The parameters of a list that is read by the page, in the order of `P`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery<P> {
    /// The start of the page: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<P>,
    /// Maximum number of items to return. Default: 100; maximum: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

/// The number of items on a page if the caller sets no limit: a screen or two.
const DEFAULT_LIMIT: usize = 100;

impl<T, P> Page<T, P> {
    /// Returns a page; `next` is the place of its last item, in the order of the list.
    pub(crate) fn new(items: Vec<T>, limit: usize, place: impl Fn(&T) -> P) -> Self {
        Self { next: next_page(&items, limit, place), items }
    }
}

/// Returns the start of the next page. A full page has one, though the next page may turn out to be empty.
pub(crate) fn next_page<T, P>(items: &[T], limit: usize, place: impl Fn(&T) -> P) -> Option<P> {
    items.last().filter(|_| items.len() >= limit).map(place)
}

/// Returns the maximum number of items on a page for the parameter `limit`.
pub(crate) fn page_size(limit: Option<u64>) -> usize {
    limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(MAX_PAGE).min(MAX_PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_page_has_a_next_one() {
        for (items, limit, expected) in
            [(vec![7, 8], 2, Some(8)), (vec![7, 8], 3, None), (vec![7, 8], 1, Some(8)), (vec![], 2, None)]
        {
            let page = Page::new(items.clone(), limit, |item: &u64| *item);
            assert_eq!(page.next, expected, "{items:?} of {limit}");
        }
    }

    #[test]
    fn a_page_has_100_items_by_default_and_at_most_1000() {
        for (limit, size) in [(None, 100), (Some(7), 7), (Some(5_000), 1_000), (Some(u64::MAX), 1_000)] {
            assert_eq!(page_size(limit), size, "{limit:?}");
        }
    }
}
