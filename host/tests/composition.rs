//! A screen that many services contribute to, while one of them is in trouble.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic, wherever that is")]

mod common;

use std::fs;

use serde_json::json;

use common::shop::{configuration, order};
use common::{Site, built};

#[test]
fn an_order_is_shown_without_what_a_missing_service_knows() {
    let plugins = tempfile::tempdir().unwrap();
    for name in ["inventory.wasm", "order.wasm", "payment.wasm"] {
        fs::copy(built("plugins").join(name), plugins.path().join(name)).unwrap();
    }
    let site = Site::with_plugins(plugins.path(), &configuration());
    let host = site.start();
    host.register("apple", 300, 10);
    let placed = host.post("/orders", &[], &order(&[("apple", 2)]).json()).ok();

    let shown = host.get(&format!("/orders/{}/details", placed["id"].as_str().unwrap())).ok();
    assert_eq!((&shown["unavailable"], &shown["delivery"]), (&json!(["delivery"]), &json!(null)));
    assert_eq!((&shown["total"], &shown["lines"]), (&json!(600), &placed["state"]["lines"]));
}
