//! Requests to the shop, and its configuration.

use serde_json::{Value, json};
use uuid::Uuid;

use super::http::{Client, Reply};

/// A region to which nothing is delivered.
pub(crate) const UNDELIVERABLE: &str = "atlantis";
pub(crate) const CARD_LIMIT: u64 = 100_000;
pub(crate) const POINTS_LIMIT: u64 = 1_000;
/// Longer than any saga takes on a busy machine: no test waits this long.
pub(crate) const SAGA_END: (&str, &str) = ("prefer", "wait=30");

/// Returns the `kontor.toml` of the shop.
pub(crate) fn configuration() -> String {
    format!(
        "[services.payment]\ncard-limit = {CARD_LIMIT}\npoints-limit = {POINTS_LIMIT}\n\
         [services.delivery]\nundeliverable-regions = ['{UNDELIVERABLE}']\n"
    )
}

/// An order to place.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) lines: Vec<(String, i64)>,
    pub(crate) payment: Vec<(&'static str, &'static str)>,
    pub(crate) region: &'static str,
}

/// Returns an order of these products, paid by card and sent to a region that is delivered to.
pub(crate) fn order(lines: &[(&str, i64)]) -> Wanted {
    let lines = lines.iter().map(|(product, quantity)| ((*product).to_owned(), *quantity)).collect();
    Wanted { lines, payment: vec![("card", "1")], region: "north" }
}

impl Wanted {
    pub(crate) fn paid(self, payment: &[(&'static str, &'static str)]) -> Self {
        Self { payment: payment.to_vec(), ..self }
    }

    pub(crate) fn sent_to(self, region: &'static str) -> Self {
        Self { region, ..self }
    }

    /// Returns the body of `POST /orders`.
    pub(crate) fn json(&self) -> Value {
        let mut order = self.change();
        order["user_id"] = json!("ada");
        order["address"] = json!({"region": self.region, "line": "1 Quay Street"});
        order
    }

    /// Returns the body of `PUT /orders/{id}` that makes an order like this one.
    pub(crate) fn change(&self) -> Value {
        let line = |(product, quantity): &(String, i64)| json!({"product_id": product, "quantity": quantity});
        let part = |(method, share): &(&str, &str)| json!({"method": method, "share": share});
        json!({
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
            "payment": self.payment.iter().map(part).collect::<Vec<_>>(),
        })
    }
}

/// Returns a new idempotency key. An order created with it has it as its id.
pub(crate) fn new_key() -> String {
    Uuid::now_v7().to_string()
}

impl Client {
    pub(crate) fn register(&self, product: &str, unit_price: u64, quantity: u64) -> Reply {
        let body = json!({"name": format!("A {product}"), "unit_price": unit_price, "quantity": quantity});
        let reply = self.put(&format!("/products/{product}"), &body);
        reply.ok();
        reply
    }

    /// Places an order and waits for the end of its saga.
    pub(crate) fn place(&self, wanted: &Wanted) -> Reply {
        self.post("/orders", &[SAGA_END], &wanted.json())
    }

    /// Changes an order and waits for the end of its saga, as do the methods below.
    pub(crate) fn change(&self, order: &str, wanted: &Wanted) -> Reply {
        self.send("PUT", &format!("/orders/{order}"), &[SAGA_END], &wanted.change().to_string())
    }

    pub(crate) fn delete(&self, order: &str) -> Reply {
        self.send("DELETE", &format!("/orders/{order}"), &[SAGA_END], "")
    }

    pub(crate) fn start_delivery(&self, order: &str) -> Reply {
        self.send("POST", &format!("/deliveries/{order}/start"), &[SAGA_END], "")
    }

    pub(crate) fn complete_delivery(&self, order: &str) -> Reply {
        self.send("POST", &format!("/deliveries/{order}/complete"), &[SAGA_END], "")
    }

    /// Returns the available and the reserved quantity of a product.
    pub(crate) fn stock(&self, product: &str) -> (u64, u64) {
        let product = self.get(&format!("/products/{product}")).ok();
        (product["available"].as_u64().unwrap(), product["reserved"].as_u64().unwrap())
    }
}

/// Returns the names of some events.
pub(crate) fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["name"].as_str().unwrap()).collect()
}
