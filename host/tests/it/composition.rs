//! A screen composed of the answers of several services, one of which fails.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use crate::common::deploy::fixture;
use crate::common::shop::{configuration, order};
use crate::common::{Site, built};

/// Returns a folder with some components of the shop.
fn plugins(names: &[&str]) -> TempDir {
    let plugins = tempfile::tempdir().unwrap();
    for name in names {
        fs::copy(built("plugins").join(name), plugins.path().join(name)).unwrap();
    }
    plugins
}

#[test]
fn an_order_is_shown_without_what_a_missing_service_knows() {
    let plugins = plugins(&["inventory.wasm", "order.wasm", "payment.wasm"]);
    let site = Site::with_plugins(plugins.path(), &configuration());
    let host = site.start();
    host.register("apple", 300, 10);
    let placed = host.post("/orders", &[], &order(&[("apple", 2)]).json()).ok();

    let shown = host.get(&format!("/orders/{}/details", placed["id"].as_str().unwrap())).ok();
    assert_eq!((&shown["unavailable"], &shown["delivery"]), (&json!(["delivery"]), &json!(null)));
    assert_eq!((&shown["total"], &shown["lines"]), (&json!(600), &placed["state"]["lines"]));
}

#[test]
fn an_order_is_shown_in_time_without_what_a_broken_service_knows() {
    let plugins = plugins(&["delivery.wasm", "inventory.wasm", "order.wasm", "payment.wasm"]);
    // A component may loop for longer than any test waits, so the screen's own time limit must end the wait.
    let site = Site::with_plugins(plugins.path(), "[limits]\ncall_time_ms = 300_000\n");
    let host = site.start();
    host.register("apple", 300, 10);
    let placed = ["traps", "loops"].map(|region| host.place(&order(&[("apple", 2)]).sent_to(region)).ok());
    host.force(&fixture("stuck"));
    for placed in placed {
        let shown = host.get(&format!("/orders/{}/details", placed["id"].as_str().unwrap())).ok();
        assert_eq!((&shown["unavailable"], &shown["delivery"]), (&json!(["delivery"]), &json!(null)));
        assert_eq!((&shown["total"], &shown["payment"]["amount"]), (&json!(600), &json!(600)));
        assert_eq!(shown["status"], "confirmed");
    }
    assert!(host.log().contains("nobody knows the way to traps"));
}
