//! Questions about orders.

use kontor_sdk::{db, prelude::*};

use crate::row::{Address, Line, Part, Status};

/// One order with its payment and its delivery. Times are milliseconds since 1970-01-01 UTC.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReportedOrder {
    #[serde(skip_serializing)]
    #[schemars(skip)]
    number: i64,
    id: String,
    user_id: String,
    status: Status,
    /// Why it was cancelled, or why the last change or deletion was not made; null otherwise.
    reason: Option<Rejection>,
    lines: Vec<Line>,
    /// In the smallest unit of the currency.
    total: u64,
    address: Address,
    /// Null if it has not been paid.
    payment_status: Option<String>,
    payment: Option<Vec<Part>>,
    /// Null if no delivery has been planned.
    delivery_status: Option<String>,
    created_at_ms: i64,
    updated_at_ms: i64,
}

const ONE: &str = "SELECT * FROM orders WHERE id = ?1 AND created_at_ms IS NOT NULL";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderId {
    id: String,
}

pub(crate) fn order(OrderId { id }: OrderId) -> Result<ReportedOrder, Failure> {
    let order = db::query_one(ONE, params![&id])?;
    order.ok_or_else(|| Rejection::new("not-found", format!("There is no order with the id {id}.")).into())
}

/// Which orders, and how many of them at once. An order must be all of what is asked for.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    /// Orders of this user.
    user_id: Option<String>,
    status: Option<Status>,
    /// Orders that contain this product.
    product_id: Option<String>,
    /// Orders placed at this time or later, in milliseconds since 1970-01-01 UTC like `created_at_ms`.
    from: Option<i64>,
    /// Orders placed before this time, in milliseconds since 1970-01-01 UTC.
    to: Option<i64>,
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 200))]
    limit: u32,
    /// The `next` of the page before.
    after: Option<Cursor>,
}

/// A screen's worth.
fn default_limit() -> u32 {
    50
}

/// An order's place in the list: when it was placed, and its number. What is placed later comes before it, so a page is the same
/// however many orders have come since.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Ord, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
struct Cursor(i64, i64);

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts = text
            .split_once('.')
            .and_then(|(time, number)| Some(Self(time.parse().ok()?, number.parse().ok()?)));
        parts.ok_or("`after` must be the `next` of another page")
    }
}

impl From<Cursor> for String {
    fn from(Cursor(created_at_ms, number): Cursor) -> Self {
        format!("{created_at_ms}.{number}")
    }
}

/// One page of orders, the newest first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Orders {
    items: Vec<ReportedOrder>,
    /// The `after` of the next page; null on the last one.
    next: Option<Cursor>,
}

pub(crate) fn orders(search: Search) -> Result<Orders, Failure> {
    let sql = search.sql();
    let Search { user_id, status, product_id, from, to, limit, after } = search;
    let end = Cursor(to.unwrap_or(i64::MAX), 0);
    let Cursor(time, number) = after.into_iter().fold(end, Cursor::min);
    let parameters = params![from.unwrap_or(i64::MIN), time, number, limit + 1, user_id, status, product_id];
    let mut items: Vec<ReportedOrder> = db::query(&sql, parameters)?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|order| Cursor(order.created_at_ms, order.number));
    Ok(Orders { items, next })
}

impl Search {
    /// All that is asked for is tested on every order. What differs is the index through which they come, newest first:
    /// one in which every order is wanted or, for a user or a product, enough of them.
    fn sql(&self) -> String {
        let (table, wanted) = match (&self.user_id, &self.product_id, self.status) {
            (Some(_), _, _) => ("orders INDEXED BY orders_by_user", "orders.user_id = ?5"),
            (None, Some(_), _) => (
                "orders_by_product AS listed CROSS JOIN orders USING (number)",
                "listed.product_id = ?7 AND (?6 IS NULL OR listed.status = ?6)",
            ),
            (None, None, Some(_)) => ("orders INDEXED BY orders_by_status", "orders.status = ?6"),
            (None, None, None) => ("orders INDEXED BY orders_by_time", "true"),
        };
        let index = if table.starts_with("orders_by_product") { "listed" } else { "orders" };
        format!(
            "SELECT orders.* FROM {table}
             WHERE {wanted} AND {index}.created_at_ms >= ?1 AND ({index}.created_at_ms, {index}.number) < (?2, ?3)
                 AND (?5 IS NULL OR orders.user_id = ?5)
                 AND (?6 IS NULL OR orders.status = ?6)
                 AND (?7 IS NULL OR EXISTS (
                     SELECT 1 FROM orders_by_product AS of_product WHERE of_product.product_id = ?7
                         AND of_product.created_at_ms = orders.created_at_ms AND of_product.number = orders.number
                 ))
             ORDER BY {index}.created_at_ms DESC, {index}.number DESC LIMIT ?4"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    #[test]
    fn every_search_reads_one_index_newest_first_and_stops_when_the_page_is_full() {
        let page = "created_at_ms>? AND ";
        let table: [(&[&str], &str); 8] = [
            (&[], "orders USING INDEX orders_by_time ("),
            (&["user"], "orders USING INDEX orders_by_user (user_id=? AND "),
            (&["status"], "orders USING INDEX orders_by_status (status=? AND "),
            (&["user", "status"], "orders USING INDEX orders_by_user (user_id=? AND "),
            (&["product"], "listed USING PRIMARY KEY (product_id=? AND "),
            (&["user", "product"], "orders USING INDEX orders_by_user (user_id=? AND "),
            (&["status", "product"], "listed USING PRIMARY KEY (product_id=? AND "),
            (&["user", "status", "product"], "orders USING INDEX orders_by_user (user_id=? AND "),
        ];
        for (filters, index) in table {
            let asked = |name| filters.contains(&name).then(|| name.to_owned());
            let search = Search {
                user_id: asked("user"),
                product_id: asked("product"),
                status: asked("status").map(|_| Status::Confirmed),
                ..Search::default()
            };
            let plan = plan(&search.sql());
            assert!(plan[0].starts_with(&format!("SEARCH {index}{page}")), "{filters:?}: {plan:#?}");
            let others = [
                "SEARCH orders USING INTEGER PRIMARY KEY (rowid=?)",
                "SEARCH of_product USING PRIMARY KEY (product_id=? AND created_at_ms=? AND number=?)",
            ];
            let rest = plan[1..].iter().filter(|step| step.starts_with("SEARCH") || step.starts_with("SCAN"));
            assert!(rest.clone().all(|step| others.contains(&step.as_str())), "{filters:?}: {plan:#?}");
            assert!(!plan.contains(&"USE TEMP B-TREE FOR ORDER BY".to_owned()), "{filters:?}: {plan:#?}");
        }
    }

    #[test]
    fn one_order_is_found_by_its_id() {
        let plan = plan(ONE);
        assert_eq!(plan[0], "SEARCH orders USING INDEX sqlite_autoindex_orders_1 (id=?)");
    }

    #[test]
    fn a_cursor_reads_what_it_wrote_and_nothing_else() {
        let cursor = Cursor(1_700_000_000_000, 7);
        assert_eq!(Cursor::try_from(String::from(cursor)), Ok(cursor));
        for text in ["", "7", "x.7", "7.x"] {
            assert!(Cursor::try_from(text.to_owned()).is_err(), "{text:?} must be refused");
        }
    }
}
