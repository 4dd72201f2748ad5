//! A full check of a host while no saga runs: the laws of the shop, and read models that agree with the log.

use std::collections::BTreeMap;

use kontor_testkit::shop::laws::{self, Shop, Views};
use serde_json::Value;

use super::Host;
use super::http::Client;

/// Waits until no saga runs, then checks everything. Returns the status of each order.
#[track_caller]
pub(crate) fn check(host: &Host) -> BTreeMap<String, String> {
    let (ledger, views) = laws::check(host);
    check_products(host, ledger.position, &views);
    let orders = ledger.statuses("order");
    for id in orders.keys() {
        check_report(host, ledger.position, &views, id);
    }
    orders
}

impl Shop for Host {
    fn events(&self, after: u64) -> impl Iterator<Item = Value> {
        self.each_event(after)
    }

    fn follow(&self, after: u64) -> impl Iterator<Item = Value> {
        Client::follow(self, after)
    }

    fn view(&self, aggregate: &str, id: &str) -> Value {
        let folder = match aggregate {
            "product" => "products",
            "order" => "orders",
            "payment" => "payments",
            "delivery" => "deliveries",
            other => panic!("nobody asks for a {other}"),
        };
        let reply = self.get(&format!("/{folder}/{id}"));
        if reply.status == 404 { Value::Null } else { reply.ok() }
    }
}

/// Checks that the list of products shows each product as its own page does.
#[track_caller]
fn check_products(host: &Host, position: u64, views: &Views) {
    let position = position.to_string();
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
    let products = views.iter().filter(|((kind, _), _)| kind == "product");
    assert_eq!(listed, products.map(|(_, view)| view.clone()).collect::<Vec<_>>());
}

/// Checks that the report of an order agrees with the order, its payment and its delivery.
#[track_caller]
fn check_report(host: &Host, position: u64, views: &Views, id: &str) {
    let path = format!("/reports/orders/{id}");
    let report = host.get_with(&path, &[("kontor-position", &position.to_string())]).ok();
    let view = |kind: &str| views.get(&(kind.to_owned(), id.to_owned())).unwrap_or(&Value::Null);
    let (order, payment, delivery) = (view("order"), view("payment"), view("delivery"));
    for field in ["id", "user_id", "status", "lines", "total", "address", "reason"] {
        assert_eq!(report[field], order[field], "{field} in the report of {order}");
    }
    assert_eq!(report["payment_status"], payment["status"], "in the report of {order}");
    assert_eq!(report["payment"], payment["methods"], "in the report of {order}");
    assert_eq!(report["delivery_status"], delivery["status"], "in the report of {order}");
}
