//! The expected reports, computed from the log alone, and their comparison with the answers of the report
//! service.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::thread;
use std::time::SystemTime;

use kontor_testkit::shop::laws::Ledger;
use serde_json::{Value, json};

use super::http::Client;
use super::traffic::{PRODUCTS, USERS};

/// The length of the date in a time, such as `2025-03-01`.
const DAY_LENGTH: usize = 10;

const STATUSES: [&str; 6] = ["pending", "confirmed", "updating", "deleting", "deleted", "cancelled"];
/// The statuses of orders that count as sales.
const STANDING: [&str; 3] = ["confirmed", "updating", "deleting"];

/// The maximum number of items of a page.
const MAX_LIMIT: usize = 200;
/// The number of pages in which a list is read, unless they would be too long.
const PAGES: usize = 3;
/// The concurrent readers: enough to keep the host busy.
const READERS: usize = 4;
/// The interval at which orders are also queried by id.
const ONE_BY_ONE: usize = 50;

/// All orders with their payments and deliveries, up to the position read so far.
#[derive(Default)]
pub(crate) struct Books {
    ledger: Ledger,
    orders: BTreeMap<String, Order>,
}

/// An order, except for the statuses, which are in the ledger.
#[derive(Default)]
struct Order {
    user_id: Value,
    lines: Value,
    total: Value,
    address: Value,
    reason: Value,
    payment: Value,
    /// The day on which it was placed, in UTC: `2025-03-01`.
    day: String,
    created_at_ms: u64,
    updated_at_ms: u64,
    /// The position of its first event.
    position: u64,
}

/// An order as the report must show it.
struct Row {
    json: Value,
    day: String,
    created_at_ms: u64,
    position: u64,
}

/// The filters of a query for orders.
struct Search<'s> {
    user_id: Option<&'s str>,
    status: Option<&'s str>,
    product_id: Option<&'s str>,
    window: Window<u64>,
}

/// The limits of a time: the first is included, the second is not.
type Window<T> = (Option<T>, Option<T>);

impl Books {
    /// Reads the log until no saga runs, and compares all reports with it.
    pub(crate) fn check(&mut self, client: &Client) {
        self.catch_up(client);
        let rows = self.rows();
        let reader = Reader { client, position: self.ledger.position.to_string() };
        let searches = searches(&rows);
        let check = |search: &Search<'_>| reader.check_orders(&rows, search);
        thread::scope(|scope| {
            for part in searches.chunks(searches.len().div_ceil(READERS)) {
                scope.spawn(move || part.iter().for_each(check));
            }
        });
        for row in rows.iter().step_by(ONE_BY_ONE) {
            let path = format!("/reports/orders/{}", row.json["id"].as_str().unwrap());
            assert_eq!(reader.get(&path), row.json, "{path}");
        }
        let mut days: Vec<_> = rows.iter().map(|row| row.day.as_str()).collect();
        days.dedup();
        for window in windows(&days) {
            reader.check_sales(&rows, window);
        }
    }

    fn catch_up(&mut self, client: &Client) {
        client.each_event(self.ledger.position).for_each(|event| self.apply(&event));
        if self.ledger.running() > 0 {
            let mut coming = client.follow(self.ledger.position);
            while self.ledger.running() > 0 {
                self.apply(&coming.next().expect("the sagas end"));
            }
        }
    }

    fn apply(&mut self, event: &Value) {
        self.ledger.apply(event);
        let (kind, id) = event["stream"].as_str().unwrap().split_once('/').unwrap();
        if !["order", "payment", "delivery"].contains(&kind) {
            return;
        }
        let order = self.orders.entry(id.to_owned()).or_default();
        let time = event["time"].as_str().unwrap();
        let time_ms = milliseconds(time);
        order.updated_at_ms = order.updated_at_ms.max(time_ms);
        let payload = &event["payload"];
        match (kind, event["name"].as_str().unwrap()) {
            ("order", name) => {
                order.reason = payload["reason"].clone();
                if name == "order-created" {
                    (order.day, order.created_at_ms) = (time[..DAY_LENGTH].to_owned(), time_ms);
                    order.position = event["position"].as_u64().unwrap();
                    order.user_id = payload["user_id"].clone();
                    order.address = payload["address"].clone();
                }
                if ["order-created", "order-updated"].contains(&name) {
                    order.lines = payload["lines"].clone();
                    order.total = payload["total"].clone();
                }
            }
            ("payment", "payment-authorized" | "payment-changed") => {
                order.payment = payload["methods"].clone();
            }
            _ => {}
        }
    }

    /// Returns the statuses of all orders, payments and deliveries, and the codes of the reasons.
    pub(crate) fn words(&self) -> BTreeSet<String> {
        let rows = self.rows();
        let words = rows.iter().flat_map(|Row { json, .. }| {
            [&json["status"], &json["payment_status"], &json["delivery_status"], &json["reason"]["code"]]
        });
        words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    }

    /// Returns the newest order first; within one millisecond, the one that comes last in the log.
    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<_> = self.orders.iter().map(|(id, order)| self.row(id, order)).collect();
        rows.sort_by_key(|row| Reverse((row.created_at_ms, row.position)));
        rows
    }

    fn row(&self, id: &str, order: &Order) -> Row {
        let Order { user_id, lines, total, address, reason, payment, .. } = order;
        let Order { day, created_at_ms, updated_at_ms, position, .. } = order;
        let [status, payment_status, delivery_status] =
            ["order", "payment", "delivery"].map(|kind| self.ledger.status(kind, id));
        let json = json!({
            "id": id, "user_id": user_id, "status": status, "reason": reason, "lines": lines, "total": total,
            "address": address, "payment_status": payment_status, "payment": payment,
            "delivery_status": delivery_status, "created_at_ms": created_at_ms,
            "updated_at_ms": updated_at_ms,
        });
        Row { json, day: day.clone(), created_at_ms: *created_at_ms, position: *position }
    }
}

impl Row {
    fn is(&self, field: &str, wanted: Option<&str>) -> bool {
        wanted.is_none_or(|wanted| self.json[field] == wanted)
    }

    fn lines(&self) -> &[Value] {
        self.json["lines"].as_array().unwrap()
    }
}

/// Returns all combinations of user, status and product, each with a time window: with all windows if at most
/// one filter is given, otherwise with one window in turn.
fn searches(rows: &[Row]) -> Vec<Search<'static>> {
    let any_or = |names: &[&'static str]| -> Vec<_> {
        [None].into_iter().chain(names.iter().copied().map(Some)).collect()
    };
    let (users, statuses) = (any_or(&[&USERS[..], &["nobody"]].concat()), any_or(&STATUSES));
    let products = any_or(&PRODUCTS.map(|(product, ..)| product));
    let times: Vec<_> = rows.iter().map(|row| row.created_at_ms).collect();
    let windows = windows(&times);
    let mut one = windows.into_iter().cycle();
    let mut searches = Vec::new();
    for &user_id in &users {
        for &status in &statuses {
            for &product_id in &products {
                let given = [user_id, status, product_id].iter().flatten().count();
                let windows = if given < 2 { windows.to_vec() } else { one.by_ref().take(1).collect() };
                let search = |window| Search { user_id, status, product_id, window };
                searches.extend(windows.into_iter().map(search));
            }
        }
    }
    searches
}

/// Returns a window without limits, and some whose limits are times of orders. `times`: the newest first;
/// many of the oldest are equal.
fn windows<T: Copy>(times: &[T]) -> [Window<T>; 5] {
    let at = |percent| Some(times[(times.len() - 1) * percent / 100]);
    let (recent, middle, oldest) = (at(30), at(60), at(100));
    [(None, None), (middle, recent), (None, middle), (recent, None), (oldest, middle)]
}

fn is_within<T: PartialOrd>(time: &T, (from, to): &Window<T>) -> bool {
    from.as_ref().is_none_or(|from| time >= from) && to.as_ref().is_none_or(|to| time < to)
}

impl Search<'_> {
    fn wants(&self, row: &Row) -> bool {
        let contains = |product| row.lines().iter().any(|line| line["product_id"] == product);
        row.is("user_id", self.user_id)
            && row.is("status", self.status)
            && self.product_id.is_none_or(contains)
            && is_within(&row.created_at_ms, &self.window)
    }
}

/// A client that asks for reports which reflect the whole log.
struct Reader<'c> {
    client: &'c Client,
    position: String,
}

impl Reader<'_> {
    fn get(&self, path: &str) -> Value {
        self.client.get_with(path, &[("kontor-position", &self.position)]).ok()
    }

    fn check_orders(&self, rows: &[Row], search: &Search<'_>) {
        let Search { user_id, status, product_id, window: (from, to) } = *search;
        let (from, to) = (from.map(|from| from.to_string()), to.map(|to| to.to_string()));
        let filters = [
            ("user_id", user_id),
            ("status", status),
            ("product_id", product_id),
            ("from", from.as_deref()),
            ("to", to.as_deref()),
        ];
        let wanted: Vec<_> = rows.iter().filter(|row| search.wants(row)).map(|row| &row.json).collect();
        self.check_list("/reports/orders?", &filters, &wanted);
    }

    fn check_sales(&self, rows: &[Row], window: Window<&str>) {
        let (mut by_day, mut by_product) = (BTreeMap::<_, Sold>::new(), BTreeMap::<_, Sold>::new());
        let stands = |row: &Row| STANDING.iter().any(|status| row.json["status"] == *status);
        for row in rows.iter().filter(|row| stands(row) && is_within(&row.day.as_str(), &window)) {
            by_day.entry(&row.day).or_default().add(row.lines());
            for line in row.lines() {
                let product = ["product_id", "name"].map(|field| line[field].as_str().unwrap());
                by_product.entry(product).or_default().add(slice::from_ref(line));
            }
        }
        let days = by_day.iter().rev().map(|(day, sold)| sold.json(json!({"day": day})));
        let products = by_product
            .iter()
            .map(|([product, name], sold)| sold.json(json!({"product_id": product, "name": name})));
        let limits = [("from", window.0), ("to", window.1)];
        self.check_list("/reports/sales?by=day&", &limits, &days.collect::<Vec<_>>());
        self.check_list("/reports/sales?by=product&", &limits, &products.collect::<Vec<_>>());
    }

    /// Reads a list page by page: nothing is missing, nothing comes twice, and only the last page is short.
    fn check_list(&self, path: &str, filters: &[(&str, Option<&str>)], expected: &[impl Borrow<Value>]) {
        let limit = (expected.len() / PAGES).clamp(1, MAX_LIMIT);
        let mut path = format!("{path}limit={limit}");
        for (name, value) in filters {
            path.extend(value.map(|value| format!("&{name}={value}")));
        }
        let (mut rest, mut after) = (expected, String::new());
        loop {
            let page = self.get(&format!("{path}{after}"));
            let items = page["items"].as_array().unwrap();
            let (wanted, later) = rest.split_at(limit.min(rest.len()));
            for (item, wanted) in items.iter().zip(wanted) {
                assert_eq!(item, wanted.borrow(), "{path}{after}");
            }
            let next = page["next"].as_str();
            assert_eq!((items.len(), next.is_some()), (wanted.len(), !later.is_empty()), "{path}{after}");
            let Some(next) = next else { return };
            (rest, after) = (later, format!("&after={next}"));
        }
    }
}

#[derive(Default)]
struct Sold {
    orders: u64,
    quantity: u64,
    amount: u64,
}

impl Sold {
    /// Adds some lines of one order.
    fn add(&mut self, lines: &[Value]) {
        let sum = |field| lines.iter().map(|line| line[field].as_u64().unwrap()).sum::<u64>();
        self.orders += 1;
        self.quantity += sum("quantity");
        self.amount += sum("amount");
    }

    fn json(&self, mut of: Value) -> Value {
        of["orders"] = json!(self.orders);
        of["quantity"] = json!(self.quantity);
        of["amount"] = json!(self.amount);
        of
    }
}

fn milliseconds(time: &str) -> u64 {
    let since = humantime::parse_rfc3339(time).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}
