//! A reader of reports who watches all the while and never sees time go back.

use std::collections::BTreeMap;

use serde_json::Value;

use super::http::{Client, Headers};

/// The number of orders on a page.
const LIMIT: usize = 200;

pub(crate) struct Watch {
    /// A client of its own, so that all requests use one connection.
    client: Client,
    /// The position that the last answer reflected.
    position: u64,
    /// The time of the last change of each order seen.
    updated: BTreeMap<String, u64>,
    /// The cancelled orders seen: they stay as they are.
    cancelled: BTreeMap<String, Value>,
}

impl Watch {
    pub(crate) fn new(url: &str) -> Self {
        let client = Client::new(url);
        Self { client, position: 0, updated: BTreeMap::new(), cancelled: BTreeMap::new() }
    }

    /// Moves to another host on the same log, once that host has reached the same position.
    #[track_caller]
    pub(crate) fn move_to(&mut self, url: &str) {
        self.client = Client::new(url);
        let position = self.position.to_string();
        self.get("/reports/orders?limit=1", &[("kontor-position", &position)]);
    }

    /// Reads the newest orders and all cancelled ones. Everything seen before must still be there.
    #[track_caller]
    pub(crate) fn look(&mut self) {
        let newest = self.get(&format!("/reports/orders?limit={LIMIT}"), &[]);
        self.see(&newest["items"]);
        let mut cancelled = BTreeMap::new();
        let mut after = String::new();
        loop {
            let mut page = self.get(&format!("/reports/orders?status=cancelled&limit={LIMIT}{after}"), &[]);
            self.see(&page["items"]);
            for order in page["items"].as_array_mut().unwrap() {
                cancelled.insert(text(order, "id").to_owned(), order.take());
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        for (id, order) in &self.cancelled {
            assert_eq!(cancelled.get(id), Some(order), "{id} was cancelled");
        }
        self.cancelled = cancelled;
    }

    #[track_caller]
    fn see(&mut self, orders: &Value) {
        for order in orders.as_array().unwrap() {
            let updated = order["updated_at_ms"].as_u64().unwrap();
            let before = self.updated.insert(text(order, "id").to_owned(), updated);
            assert!(before <= Some(updated), "{order} was of {before:?} before");
        }
    }

    #[track_caller]
    fn get(&mut self, path: &str, headers: Headers<'_>) -> Value {
        let reply = self.client.get_with(path, headers);
        let answer = reply.ok();
        let position = reply.header("kontor-position").unwrap().parse().unwrap();
        assert!(position >= self.position, "{path} was answered from {position} after {}", self.position);
        self.position = position;
        answer
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap()
}
