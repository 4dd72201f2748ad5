//! Queries of orders.

use kontor_sdk::{Cursor, db, prelude::*};

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
    /// The reason why it was cancelled, or why the last change or deletion was not made; null otherwise.
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
pub(crate) struct OrderById {
    id: String,
}

impl Query for OrderById {
    const NAME: &str = "order";
    const DESCRIPTION: &str = "One order with its payment and its delivery.";
    type Answer = ReportedOrder;

    fn answer(self) -> Result<ReportedOrder, Error> {
        let Self { id } = self;
        let order = db::query_one(ONE, params![&id])?;
        let not_found = || Rejection::new("not-found", format!("There is no order with the id {id}."));
        order.ok_or_else(|| not_found().into())
    }
}

/// The filters of a search, and its page. An order must fit all filters.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderSearch {
    /// Orders of this user.
    user_id: Option<String>,
    status: Option<Status>,
    /// Orders that contain this product.
    product_id: Option<String>,
    /// Orders placed at this time or later, in milliseconds since 1970-01-01 UTC like `created_at_ms`.
    from: Option<i64>,
    /// Orders placed before this time, in milliseconds since 1970-01-01 UTC.
    to: Option<i64>,
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the page before.
    after: Option<Place>,
}

/// An order's place in the list: the time when it was placed, and its number. Later orders come before it, so
/// a page stays the same however many orders have come since.
type Place = Cursor<2>;

impl Query for OrderSearch {
    const NAME: &str = "orders";
    const DESCRIPTION: &str = "Orders with their payments and deliveries, the newest first.";
    type Answer = Page<ReportedOrder, Place>;

    fn answer(self) -> Result<Page<ReportedOrder, Place>, Error> {
        let sql = self.sql();
        let Self { user_id, status, product_id, from, to, limit, after } = self;
        let end = Cursor([to.unwrap_or(i64::MAX), 0]);
        let Cursor([time, number]) = after.map_or(end, |after| after.min(end));
        let from = from.unwrap_or(i64::MIN);
        let parameters = params![from, time, number, limit.rows(), user_id, status, product_id];
        let rows = db::query(&sql, parameters)?;
        Ok(Page::new(rows, limit, |order: &ReportedOrder| Cursor([order.created_at_ms, order.number])))
    }
}

impl OrderSearch {
    /// Returns the statement, which tests every filter on every order. The filters only choose the index
    /// through which the orders come, newest first: one in which every order fits or, for a user or a
    /// product, enough of them do.
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
             WHERE {wanted} AND {index}.created_at_ms >= ?1
                 AND ({index}.created_at_ms, {index}.number) < (?2, ?3)
                 AND (?5 IS NULL OR orders.user_id = ?5)
                 AND (?6 IS NULL OR orders.status = ?6)
                 AND (?7 IS NULL OR EXISTS (
                     SELECT 1 FROM orders_by_product AS of_product
                     WHERE of_product.product_id = ?7 AND of_product.created_at_ms = orders.created_at_ms
                         AND of_product.number = orders.number
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
            let search = OrderSearch {
                user_id: asked("user"),
                product_id: asked("product"),
                status: asked("status").map(|_| Status::Confirmed),
                ..OrderSearch::default()
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
}
