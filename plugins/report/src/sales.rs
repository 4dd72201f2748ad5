//! The query of sales, by product or by day.

use kontor_sdk::{db, prelude::*};

/// A text that comes after every day: digits come before it.
const NO_END: &str = "~";

const BY_DAY: &str = "SELECT day, orders, quantity, amount FROM sales_by_day
    WHERE day >= ?1 AND day < min(?2, ?3) AND orders > 0 ORDER BY day DESC LIMIT ?4";

/// Looks up the days of one product after the other, so that the cost is that of the days asked for.
const BY_PRODUCT: &str = "
    SELECT products.id AS product_id, name,
        sum(orders) AS orders, sum(quantity) AS quantity, sum(amount) AS amount
    FROM products CROSS JOIN sales_by_product ON product_id = products.id AND day >= ?1 AND day < ?2
    WHERE products.id > ?3 GROUP BY products.id HAVING sum(orders) > 0 ORDER BY products.id LIMIT ?4";

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum By {
    Product,
    Day,
}

/// The kind of the totals, their days, and the page. An order counts on the day (UTC) on which it was placed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sales {
    by: By,
    /// Orders placed on this day or later: `2026-03-01`.
    #[schemars(extend("format" = "date"))]
    from: Option<String>,
    /// Orders placed before this day.
    #[schemars(extend("format" = "date"))]
    to: Option<String>,
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the page before.
    after: Option<String>,
}

/// The sales of a product, or of a day.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Total {
    #[serde(flatten)]
    of: Of,
    /// Number of orders.
    orders: u64,
    /// Number of pieces.
    quantity: u64,
    /// In the smallest unit of the currency.
    amount: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Of {
    Product { product_id: String, name: String },
    Day { day: String },
}

impl Query for Sales {
    const NAME: &str = "sales";
    const DESCRIPTION: &str = "Sales, from the orders that stand: those that are confirmed, or were and are \
        being changed or deleted now. Pending, cancelled and deleted orders do not count. Lists products in \
        the order of their ids, or days, the last one first.";
    type Answer = Page<Total>;

    fn answer(self) -> Result<Page<Total>, Error> {
        let Self { by, from, to, limit, after } = self;
        let (sql, first) = match by {
            By::Product => (BY_PRODUCT, ""),
            By::Day => (BY_DAY, NO_END),
        };
        let after = after.unwrap_or_else(|| first.to_owned());
        let to = to.unwrap_or_else(|| NO_END.to_owned());
        let rows = db::query(sql, params![from.unwrap_or_default(), to, after, limit.rows()])?;
        Ok(Page::new(rows, limit, Total::key))
    }
}

impl Total {
    fn key(&self) -> String {
        let (Of::Product { product_id: key, .. } | Of::Day { day: key }) = &self.of;
        key.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    #[test]
    fn totals_are_looked_up_and_not_added_up_from_the_orders() {
        let by_product = [
            "SEARCH products USING PRIMARY KEY (id>?)",
            "SEARCH sales_by_product USING PRIMARY KEY (product_id=? AND day>? AND day<?)",
        ];
        assert_eq!(plan(BY_PRODUCT), by_product);
        assert_eq!(plan(BY_DAY), ["SEARCH sales_by_day USING PRIMARY KEY (day>? AND day<?)"]);
    }
}
