//! The garbage collection removes what nothing needs any more, and nothing else.

use std::fs;

use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};

use crate::common::deploy::{FOR_THANKS, FOR_UNRULY, digest_of, fixture, plugin, site};
use crate::common::nodes::{both_up, sites, when};
use crate::common::{Host, Site};

/// Only the tests collect, and every saga that has ended is old.
const BY_HAND: &str = "[gc]\nevery_ms = 0\nended_sagas_ms = 0\n";

/// Returns the kinds that have garbage, each with the number of its files or rows.
fn kinds(list: &Value) -> Value {
    let found = list["items"].as_array().unwrap().iter().filter(|kind| kind["items"] != 0);
    let found = found.map(|kind| {
        assert!(kind["bytes"].as_u64().unwrap() > 0 && kind["failure"].is_null(), "{kind}");
        (kind["kind"].as_str().unwrap().to_owned(), kind["items"].clone())
    });
    Value::Object(found.collect())
}

/// Registers a product, for which a service thanks, and waits until the saga of that has ended. Returns the
/// saga's id.
fn thank(host: &Host) -> String {
    host.register("tea", 5, 10);
    let ended = |list: &Value| list["items"].as_array().is_some_and(|sagas| !sagas.is_empty());
    let list = when(|| host.get("/admin/sagas?state=completed").ok(), ended);
    list["items"][0]["id"].as_str().unwrap().to_owned()
}

fn is_kept(site: &Site, wasm: &[u8]) -> bool {
    site.data().join(format!("components/{}.wasm", digest_of(wasm).unwrap())).exists()
}

#[test]
fn what_nothing_needs_is_counted_and_removed_and_all_else_goes_on() {
    let (inventory, unruly, thanks) = (plugin("inventory"), fixture("unruly"), fixture("thanks"));
    let (site, _plugins) = site(&[("inventory", inventory.clone())], BY_HAND);
    // The compiled code that tests share stays.
    fs::remove_file(site.data().join("compiled")).unwrap();
    let host = site.start();
    host.deploy(&thanks, FOR_THANKS).ok();
    let saga = thank(&host);
    host.deploy(&unruly, FOR_UNRULY).ok();
    host.undeploy("unruly", "").ok();
    // One saga of the service is still open.
    host.undeploy("thanks", "").ok();
    fs::write(site.data().join("compiled/of-another-version.cwasm"), "code").unwrap();

    let expected = json!({"ended-sagas": 1, "read-models": 1, "compiled-code": 2, "components": 1});
    let listed = when(|| kinds(&host.get("/admin/gc").ok()), |found| *found == expected);
    assert_eq!(kinds(&host.get("/admin/gc").ok()), listed, "a dry run removes nothing");
    assert_eq!(kinds(&host.post("/admin/gc", &[], &json!({"reason": "the disk is full"})).ok()), expected);
    assert_eq!(kinds(&host.get("/admin/gc").ok()), json!({}));
    assert!(!is_kept(&site, &unruly) && is_kept(&site, &thanks) && is_kept(&site, &inventory));
    let audit = host.get("/admin/audit").ok();
    let last = audit["items"].as_array().unwrap().last().unwrap();
    let expected = json!(["collect-garbage", "done", "the disk is full"]);
    assert_eq!(json!([last["act"], last["outcome"], last["reason"]]), expected);

    // The saga is not listed any more; its journal tells all about it.
    assert_eq!(host.get("/admin/sagas?state=completed").ok()["items"], json!([]));
    assert_eq!(host.get(&format!("/sagas/{saga}")).ok()["state"], "completed");
    assert_eq!(host.get(&format!("/admin/sagas/{saga}")).ok()["state"], "completed");
    assert!(host.stop().success());
    let host = site.start();
    assert_eq!(host.stock("tea"), (10, 0));
    assert_eq!(host.get("/admin/sagas?state=waiting").ok()["items"].as_array().unwrap().len(), 1);
    host.deploy(&unruly, FOR_UNRULY).ok();
}

#[test]
fn a_host_collects_by_itself_what_was_left_before_its_start() {
    let (site, _plugins) = site(&[("inventory", plugin("inventory"))], "");
    let host = site.start();
    host.deploy(&fixture("unruly"), FOR_UNRULY).ok();
    host.undeploy("unruly", "").ok();
    assert!(is_kept(&site, &fixture("unruly")));
    assert!(host.stop().success());
    let host = site.start();
    when(|| kinds(&host.get("/admin/gc").ok()), |found| *found == json!({}));
    assert!(!is_kept(&site, &fixture("unruly")));
    assert!(host.metric("kontor_gc_removed_bytes_total{kind=\"components\"}") > 0.0);
}

#[test]
fn the_store_of_several_hosts_keeps_what_one_of_them_needs() {
    let server = NatsServer::start();
    let [left_site, right_site] = sites(&server);
    let (left, right) = (left_site.start(), right_site.start());
    both_up(&left);
    left.deploy(&fixture("unruly"), FOR_UNRULY).ok();
    left.deploy(&fixture("thanks"), FOR_THANKS).ok();
    left.undeploy("unruly", "").ok();
    let shared = |list: Value| kinds(&list)["shared-components"].clone();
    when(|| shared(right.get("/admin/gc").ok()), |found| *found == 1);
    assert_eq!(shared(right.post("/admin/gc", &[], &json!({})).ok()), 1);
    assert_eq!(shared(left.get("/admin/gc").ok()), Value::Null);
    // A host that joins with an empty directory gets all that it needs.
    assert!(right.stop().success());
    right_site.lose_data();
    let right = right_site.start();
    assert_eq!(right.digest("thanks"), left.digest("thanks"));
    assert!(is_kept(&right_site, &fixture("thanks")));
}
