//! Long lists are shown a page at a time: `?limit=N` says how long one may be, `?after=…` where the one before has ended.

use std::str::FromStr;

use serde::Serialize;

use super::parameters::Parameters;
use crate::contract::Problem;
use crate::log::MAX_PAGE;

/// The items of one page if the caller names no limit: a screen or two.
const DEFAULT_LIMIT: usize = 100;

/// Part of a list, and what to send as `after` for what follows.
#[derive(Serialize)]
pub(super) struct Page<T, P> {
    items: Vec<T>,
    /// None if there was no more.
    next: Option<P>,
}

impl<T, P> Page<T, P> {
    /// `place` is what `after` counts in.
    pub(super) fn new(items: Vec<T>, limit: usize, place: impl Fn(&T) -> P) -> Self {
        Self { next: next(&items, limit, place), items }
    }
}

/// Where the page after this one begins. A full page has a next one, though that may turn out to be empty.
pub(super) fn next<T, P>(items: &[T], limit: usize, place: impl Fn(&T) -> P) -> Option<P> {
    items.last().filter(|_| items.len() >= limit).map(place)
}

/// `?limit=N`, at most [`MAX_PAGE`].
pub(super) fn limit(parameters: &Parameters<'_>) -> Result<usize, Problem> {
    match parameters.number::<u64>("limit")? {
        None => Ok(DEFAULT_LIMIT),
        Some(0) => Err(Problem::invalid_parameter("The parameter limit must be at least 1.")),
        Some(limit) => Ok(usize::try_from(limit).unwrap_or(MAX_PAGE).min(MAX_PAGE)),
    }
}

/// `?after=N`, a place in the list, 0 if it is not there, and `?limit=N`.
pub(super) fn after_and_limit<P: FromStr + Default>(
    parameters: &Parameters<'_>,
) -> Result<(P, usize), Problem> {
    Ok((parameters.number("after")?.unwrap_or_default(), limit(parameters)?))
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
    fn a_page_begins_at_the_start_and_has_a_limit() {
        let read = |query| after_and_limit::<u64>(&Parameters::parse(Some(query)).unwrap()).ok();
        let table = [
            ("", Some((0, 100))),
            ("after=9&limit=7", Some((9, 7))),
            ("limit=5000", Some((0, 1000))),
            ("limit=0", None),
            ("after=x", None),
        ];
        for (query, expected) in table {
            assert_eq!(read(query), expected, "{query}");
        }
    }
}
