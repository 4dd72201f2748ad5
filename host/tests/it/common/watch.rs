//! Somebody who looks at reports all the while, and for whom time never goes back.

use std::collections::BTreeMap;

use serde_json::Value;

use super::http::{Client, Headers};

/// The orders of a page.
const LIMIT: usize = 200;

pub(crate) struct Watch {
    /// Its own, so that it has one connection.
    client: Client,
    /// What the last answer reflected.
    position: u64,
    /// When each order that was seen had been changed last.
    updated: BTreeMap<String, u64>,
    /// What is cancelled stays so, and nothing happens to it any more.
    cancelled: BTreeMap<String, Value>,
}

impl Watch {
    pub(crate) fn new(url: &str) -> Self {
        let client = Client::new(url);
        Self { client, position: 0, updated: BTreeMap::new(), cancelled: BTreeMap::new() }
    }

    /// Goes on with another host on the same log, when that is as far.
    #[track_caller]
    pub(crate) fn move_to(&mut self, url: &str) {
        self.client = Client::new(url);
        let position = self.position.to_string();
        self.get("/reports/orders?limit=1", &[("kontor-position", &position)]);
    }

    /// Looks at the newest orders and at all that are cancelled. Whatever has been seen before must still be there.
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
