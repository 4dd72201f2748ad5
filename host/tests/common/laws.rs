//! The laws of the shop, which hold whenever no saga runs, whatever was sent, rejected, killed or deployed before.
//!
//! 1. For each product: registered + added − removed = available + reserved + shipped, none of them negative.
//! 2. A confirmed order has an authorized payment of exactly its total, a delivery that is not cancelled, and a
//!    reservation of exactly the quantity of each of its lines (or exactly that has been shipped).
//! 3. A cancelled or deleted order has no authorized payment, no live delivery and no reservation.
//! 4. Every accepted command took effect exactly once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::http::Client;

/// The events that start a saga.
const TRIGGERS: [&str; 4] =
    ["order-created", "order-update-requested", "order-delete-requested", "delivery-start-requested"];

/// What the log says, folded as simply as possible and without the host's help.
#[derive(Default)]
struct Ledger {
    position: u64,
    /// By product, what came in and has not been taken out other than by orders.
    stock: BTreeMap<String, i64>,
    /// By product and order, what is reserved or shipped.
    taken: BTreeMap<(String, String), i64>,
    orders: BTreeSet<String>,
    /// The streams whose last saga has not ended.
    open: HashSet<String>,
    /// The stream of each saga's trigger.
    triggers: HashMap<String, String>,
    versions: HashMap<String, u64>,
    /// The stream and the command of each command id.
    commands: HashMap<String, (String, String)>,
    ids: HashSet<String>,
    parked: Vec<String>,
}

/// Waits until no saga runs, then checks all laws. Returns each order's status.
#[track_caller]
pub(crate) fn check(host: &Client) -> BTreeMap<String, String> {
    let ledger = quiet(host);
    assert_eq!(ledger.parked, Vec::<String>::new(), "sagas are parked");
    for product in ledger.stock.keys() {
        check_product(host, &ledger, product);
    }
    check_list_of_products(host, &ledger);
    let check = |order: &String| (order.clone(), check_order(host, &ledger, order));
    ledger.orders.iter().map(check).collect()
}

/// What the log says as soon as every saga that it started has ended.
fn quiet(host: &Client) -> Ledger {
    let mut ledger = Ledger::default();
    host.events(0).iter().for_each(|event| ledger.take_in(event));
    if !ledger.open.is_empty() {
        for event in host.follow(ledger.position) {
            ledger.take_in(&event);
            if ledger.open.is_empty() {
                break;
            }
        }
    }
    assert_eq!(ledger.open, HashSet::new(), "sagas on these do not end");
    ledger
}

impl Ledger {
    fn take_in(&mut self, event: &Value) {
        let text = |field: &str| event[field].as_str().unwrap().to_owned();
        let (stream, name) = (text("stream"), text("name"));
        self.check_order_of_events(event, &stream);
        let (aggregate, id) = stream.split_once('/').unwrap();
        match aggregate {
            "saga" => self.saga(id, &name, &event["payload"]),
            "product" => self.product(id, &name, &event["payload"]),
            "order" => _ = self.orders.insert(id.to_owned()),
            _ => {}
        }
        if TRIGGERS.contains(&name.as_str()) {
            self.open.insert(stream);
        }
    }

    /// Law 4: no event twice, no gap in a stream, no command in two streams, none whose events stand apart.
    fn check_order_of_events(&mut self, event: &Value, stream: &str) {
        let position = event["position"].as_u64().unwrap();
        assert!(position > self.position, "position {position} after {}", self.position);
        self.position = position;
        let version = self.versions.entry(stream.to_owned()).or_default();
        *version += 1;
        assert_eq!(event["version"], *version, "a gap in {stream}");
        let id = event["id"].as_str().unwrap();
        assert!(self.ids.insert(id.to_owned()), "{id} twice");
        let command = (stream.to_owned(), event["command"].as_str().unwrap().to_owned());
        let command_id = event["command_id"].as_str().unwrap();
        let known = self.commands.entry(command_id.to_owned()).or_insert_with(|| command.clone());
        assert_eq!(*known, command, "the command {command_id} took effect in two places");
    }

    fn saga(&mut self, id: &str, name: &str, payload: &Value) {
        match name {
            "started" => {
                let stream = payload["trigger"]["stream"].as_str().unwrap();
                self.triggers.insert(id.to_owned(), stream.to_owned());
            }
            "completed" | "compensated" => _ = self.open.remove(&self.triggers[id]),
            "parked" => {
                self.open.remove(&self.triggers[id]);
                self.parked.push(format!("{id}: {payload}"));
            }
            _ => {}
        }
    }

    fn product(&mut self, id: &str, name: &str, payload: &Value) {
        let number = |field: &str| payload[field].as_i64().unwrap();
        let order = || (id.to_owned(), payload["order_id"].as_str().unwrap().to_owned());
        match name {
            "product-registered" | "stock-added" => {
                *self.stock.entry(id.to_owned()).or_default() += number("quantity");
            }
            "stock-removed" => *self.stock.entry(id.to_owned()).or_default() -= number("quantity"),
            "stock-reserved" => {
                let before = self.taken.insert(order(), number("quantity"));
                assert_eq!(before, None, "{:?} reserved twice", order());
            }
            "reservation-changed" => {
                let before = self.taken.insert(order(), number("to"));
                assert_eq!(before, Some(number("from")), "{:?} changed from another quantity", order());
            }
            "stock-released" => {
                let before = self.taken.remove(&order());
                assert_eq!(before, Some(number("quantity")), "{:?} released another quantity", order());
            }
            "stock-shipped" | "stock-unshipped" => {
                let held = self.taken.get(&order()).copied();
                assert_eq!(held, Some(number("quantity")), "{:?} shipped another quantity", order());
            }
            other => panic!("laws.rs does not know the event {other}"),
        }
    }

    fn taken_by(&self, order: &str) -> BTreeMap<&str, i64> {
        let of_order = self.taken.iter().filter(|((_, taker), _)| taker == order);
        of_order.map(|((product, _), quantity)| (product.as_str(), *quantity)).collect()
    }
}

/// Law 1. Numbers that are read as unsigned are not negative.
fn check_product(host: &Client, ledger: &Ledger, id: &str) {
    let product = host.get(&format!("/products/{id}")).ok();
    let number = |field: &str| i64::try_from(product[field].as_u64().unwrap()).unwrap();
    let (available, reserved, shipped) = (number("available"), number("reserved"), number("shipped"));
    assert_eq!(ledger.stock[id], available + reserved + shipped, "law 1: {product}");
    let taken: i64 =
        ledger.taken.iter().filter(|((product, _), _)| product == id).map(|(_, taken)| taken).sum();
    assert_eq!(taken, reserved + shipped, "law 1, order by order: {product}");
}

/// The read model says of each product what the product says of itself.
fn check_list_of_products(host: &Client, ledger: &Ledger) {
    let position = ledger.position.to_string();
    let mut listed = Vec::new();
    let mut path = "/products?limit=200".to_owned();
    loop {
        let page = host.get_with(&path, &[("kontor-position", &position)]).ok();
        listed.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => path = format!("/products?limit=200&after={next}"),
            None => break,
        }
    }
    let products = ledger.stock.keys().map(|id| host.get(&format!("/products/{id}")).ok());
    assert_eq!(listed, products.collect::<Vec<_>>());
}

/// Laws 2 and 3. Returns the order's status.
fn check_order(host: &Client, ledger: &Ledger, id: &str) -> String {
    let order = host.get(&format!("/orders/{id}")).ok();
    let (payment, delivery) = (related(host, "payments", id), related(host, "deliveries", id));
    let taken = ledger.taken_by(id);
    let status = order["status"].as_str().unwrap();
    match status {
        "confirmed" => {
            assert_eq!(payment["status"], "authorized", "law 2: the payment of {id}");
            assert_eq!(payment["amount"], order["total"], "law 2: the payment of {id}");
            let parts = payment["methods"].as_array().unwrap().iter();
            let paid: u64 = parts.map(|part| part["amount"].as_u64().unwrap()).sum();
            assert_eq!(order["total"], paid, "law 2: the parts of the payment of {id}");
            assert!(!["", "cancelled"].contains(&status_of(&delivery)), "law 2: the delivery of {id}");
            let lines = order["lines"].as_array().unwrap().iter();
            let lines =
                lines.map(|line| (line["product_id"].as_str().unwrap(), line["quantity"].as_i64().unwrap()));
            assert_eq!(taken, lines.collect(), "law 2: what is reserved for {id}");
        }
        "cancelled" | "deleted" => {
            assert!(["", "cancelled"].contains(&status_of(&payment)), "law 3: the payment of {id}");
            assert!(["", "cancelled"].contains(&status_of(&delivery)), "law 3: the delivery of {id}");
            assert_eq!(taken, BTreeMap::new(), "law 3: what is reserved for {id}");
        }
        other => panic!("the order {id} is {other}, and no saga runs"),
    }
    status.to_owned()
}

/// The payment or the delivery of an order; null if there is none.
fn related(host: &Client, kind: &str, order: &str) -> Value {
    let reply = host.get(&format!("/{kind}/{order}"));
    if reply.status == 404 { Value::Null } else { reply.ok() }
}

/// Empty if there is none.
fn status_of(related: &Value) -> &str {
    related["status"].as_str().unwrap_or_default()
}
