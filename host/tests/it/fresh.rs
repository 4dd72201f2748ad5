//! Fresh answers: clients read their own writes, and an unchanged answer is not sent again.

use std::fs;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::http::{Client, Headers, Reply};
use crate::common::shop::{SAGA_END, configuration, order};
use crate::common::{Host, Site, built};

const POSITION: &str = "kontor-position";
const ETAG: &str = "etag";

/// The inventory, and a service that queries it.
struct Pair {
    site: Site,
    _plugins: TempDir,
}

impl Pair {
    fn new() -> Self {
        let plugins = tempfile::tempdir().unwrap();
        for (folder, name) in [("plugins", "inventory.wasm"), ("fixtures", "unruly.wasm")] {
            fs::copy(built(folder).join(name), plugins.path().join(name)).unwrap();
        }
        Self { site: Site::with_plugins(plugins.path(), ""), _plugins: plugins }
    }

    /// Blocks writes to the inventory's read model until it is dropped.
    fn hold_back_the_inventory(&self) -> Connection {
        let held = Connection::open(self.site.data().join("read/inventory-v1.db")).unwrap();
        held.execute_batch("BEGIN IMMEDIATE").unwrap();
        held
    }
}

/// Records an event that the inventory does not follow. Returns its position.
fn happen_elsewhere(host: &Host) -> String {
    position(&host.post("/beasts/1/wait", &[], &json!({})))
}

fn position(reply: &Reply) -> String {
    reply.ok();
    reply.header(POSITION).unwrap().to_owned()
}

fn reflects(reply: &Reply) -> u64 {
    reply.header(POSITION).unwrap().parse().unwrap()
}

fn get_at(host: &Client, path: &str, position: &str) -> Reply {
    host.get_with(path, &[(POSITION, position)])
}

fn get_if_changed(host: &Client, path: &str, etag: &str, position: &str) -> Reply {
    host.get_with(path, &[("if-none-match", etag), (POSITION, position)])
}

fn etag(reply: &Reply) -> String {
    reply.ok();
    assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
    reply.header(ETAG).unwrap().to_owned()
}

/// Returns how often a component was run for a query of the inventory.
fn runs(host: &Host, query: &str) -> u64 {
    let metrics = host.get("/metrics").text;
    let labels = ["service=\"inventory\"".to_owned(), format!("query=\"{query}\"")];
    let line = metrics.lines().find(|line| {
        line.starts_with("kontor_queries_total{") && labels.iter().all(|label| line.contains(label))
    });
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn every_answer_says_what_it_reflects_and_so_does_every_no() {
    let pair = Pair::new();
    let host = pair.site.start();
    let written = position(&host.register("desk", 5, 10));
    let other = happen_elsewhere(&host);
    let refused = host.post("/products/desk/remove-stock", &[], &json!({"quantity": 11}));
    refused.problem(409, "insufficient-stock");
    let stale = host.send("POST", "/products/desk/add-stock", &[("if-match", "\"7\"")], "{\"quantity\": 1}");
    stale.problem(412, "version-mismatch");
    let unknown = get_at(&host, "/products/chair", &other);
    unknown.problem(404, "not-found");
    for reply in [&refused, &stale, &unknown, &get_at(&host, "/products", &other)] {
        assert_eq!(reply.header(POSITION), Some(&*other), "{}", reply.text);
    }
    assert_eq!(host.get_with("/products?color=red", &[(POSITION, &written)]).header(POSITION), None);
}

#[test]
fn a_query_waits_for_what_its_client_has_seen_and_no_longer_than_it_likes() {
    let pair = Pair::new();
    let host = pair.site.start();
    let before = position(&host.register("desk", 5, 10));
    get_at(&host, "/products", &before).ok();
    let held = pair.hold_back_the_inventory();
    let written = position(&host.register("chair", 5, 10));

    let at_once = [(POSITION, &*written), ("prefer", "wait=0")];
    // The second service queries the first and cannot answer without it.
    for path in ["/products", "/beasts/stock"] {
        let behind = host.get_with(path, &at_once);
        let problem = behind.problem(504, "read-model-behind");
        assert_eq!(problem["position"], json!(before.parse::<u64>().unwrap()), "{path}");
        assert_eq!((behind.header("retry-after"), behind.header(POSITION)), (Some("1"), None));
    }
    // A query that does not need the inventory's read model is answered.
    assert_eq!(host.get_with("/products/chair", &at_once).ok()["available"], 10);
    assert!(reflects(&host.get("/products")) < written.parse().unwrap());

    let waiting = |path: &'static str| {
        let (client, written) = (Client::clone(&host), written.clone());
        std::thread::spawn(move || client.get_with(path, &[(POSITION, &written), ("prefer", "wait=30")]))
    };
    let waiting = [waiting("/products"), waiting("/products")];
    drop(held);
    for reply in waiting.map(|waiting| waiting.join().unwrap()) {
        assert_eq!(reply.ok()["items"].as_array().unwrap().len(), 2);
        assert!(reflects(&reply) >= written.parse().unwrap());
        assert_eq!(reply.header("preference-applied"), Some("wait=30"));
    }
    assert_eq!(get_at(&host, "/beasts/stock", &written).ok()["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_position_that_the_log_has_not_reached_is_waited_for_and_then_refused() {
    let pair = Pair::new();
    let host = pair.site.start();
    let head: u64 = position(&host.register("desk", 5, 10)).parse().unwrap();
    let ahead = (head + 1).to_string();
    for path in ["/products", "/products/desk", "/beasts/stock"] {
        let refused = host.get_with(path, &[(POSITION, &ahead), ("prefer", "wait=0")]);
        assert_eq!(refused.problem(504, "position-ahead")["position"], head, "{path}");
    }
    let waiting = {
        let (client, ahead) = (Client::clone(&host), ahead.clone());
        std::thread::spawn(move || get_at(&client, "/products", &ahead))
    };
    host.register("chair", 5, 10);
    assert_eq!(waiting.join().unwrap().ok()["items"].as_array().unwrap().len(), 2);
}

#[test]
fn every_route_waits_for_a_position_and_says_what_it_reflects() {
    let site = Site::new(&configuration());
    let host = site.start();
    let created = host.register("apple", 300, 10);
    let placed = host.place(&order(&[("apple", 1)])).ok();
    let saga = format!("/sagas/{}", placed["saga"]["id"].as_str().unwrap());
    let head = host.head();
    let ahead = (head + 1).to_string();
    for path in ["/streams/product/apple", "/events", "/admin/sagas", "/admin/plugins", &saga] {
        let reply = host.get_with(path, &[("accept", "application/json"), (POSITION, &head.to_string())]);
        reply.ok();
        assert_eq!(reply.header(POSITION), Some(&*head.to_string()), "{path}");
        let refused = host.get_with(path, &[(POSITION, &ahead), ("prefer", "wait=0")]);
        assert_eq!(refused.problem(504, "position-ahead")["position"], head, "{path}");
    }
    let unknown = get_at(&host, "/sagas/none", &position(&created));
    unknown.problem(404, "not-found");
    assert_eq!(unknown.header(POSITION), Some(&*head.to_string()));

    // A command too is decided on what its client has seen.
    let add = |headers: Headers<'_>| host.post("/products/apple/add-stock", headers, &json!({"quantity": 1}));
    add(&[(POSITION, &ahead), ("prefer", "wait=0")]).problem(504, "position-ahead");
    assert_eq!(host.head(), head);
    add(&[(POSITION, &head.to_string()), ("if-match", "*")]).ok();
}

#[test]
fn a_read_model_that_is_made_again_is_shown_when_it_is_complete() {
    let pair = Pair::new();
    let host = pair.site.start();
    (0..200).for_each(|number| drop(host.register(&format!("desk-{number}"), 5, 10)));
    host.stop();
    fs::remove_dir_all(pair.site.data().join("read")).unwrap();
    let host = pair.site.start();
    assert_eq!(host.get("/products?limit=200").ok()["items"].as_array().unwrap().len(), 200);
}

#[test]
fn a_client_that_waits_does_not_hold_up_a_shutdown() {
    let pair = Pair::new();
    let host = pair.site.start();
    let ahead = (host.head() + 1).to_string();
    let waiting = ["/products", "/products/desk", "/events", "/admin/sagas"].map(|path| {
        let (client, ahead) = (Client::clone(&host), ahead.clone());
        let patient = ("prefer", "wait=60");
        let at =
            move || client.get_with(path, &[(POSITION, &ahead), patient, ("accept", "application/json")]);
        std::thread::spawn(at)
    });
    // Answered after the others have begun to wait, most likely.
    host.get("/readyz").ok();
    let begun = Instant::now();
    assert!(host.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(20), "the drain has a limit of 30 s");
    for waiting in waiting {
        // Err: its connection was closed before the request was read.
        let _ = waiting.join();
    }
}

#[test]
fn a_kept_answer_is_right_until_something_of_interest_happens() {
    let pair = Pair::new();
    let host = pair.site.start();
    let written = position(&host.register("desk", 5, 10));
    let first = etag(&get_at(&host, "/products", &written));
    assert!(first.starts_with("W/"), "{first}");
    let before = runs(&host, "products");

    let elsewhere = happen_elsewhere(&host);
    for tags in [first.clone(), format!("\"other\", {first}"), first.trim_start_matches("W/").to_owned()] {
        let kept = get_if_changed(&host, "/products", &tags, &elsewhere);
        assert_eq!((kept.status, kept.text.as_str(), kept.header(ETAG)), (304, "", Some(&*first)), "{tags}");
        assert_eq!(kept.header("cache-control"), Some("private, no-cache"));
        assert_eq!(kept.header(POSITION), Some(&*elsewhere));
    }
    assert_eq!(runs(&host, "products"), before, "a component was run for an answer that was kept");

    let written = position(&host.post("/products/desk/add-stock", &[], &json!({"quantity": 1})));
    let changed = get_if_changed(&host, "/products", &first, &written);
    assert_eq!(changed.ok()["items"][0]["available"], 11);
    let second = etag(&changed);
    assert_ne!(first, second);
    assert_eq!(get_if_changed(&host, "/products", &second, &written).status, 304);
    assert_eq!(get_if_changed(&host, "/products", "*", &written).status, 304);
    host.stop();

    // The configuration may have changed by now.
    let host = pair.site.start();
    assert_ne!(etag(&get_if_changed(&host, "/products", &second, &written)), second);
}

#[test]
fn an_answer_that_follows_from_more_than_one_read_model_is_never_the_one_that_was_kept() {
    let pair = Pair::new();
    let host = pair.site.start();
    host.register("desk", 5, 10);
    let written = happen_elsewhere(&host);
    etag(&get_at(&host, "/beasts/last", &written));
    // The second query finds its statement prepared.
    for path in ["/beasts/stock", "/beasts/time", "/beasts/time"] {
        let reply = get_if_changed(&host, path, "\"kept\"", &written);
        reply.ok();
        assert_eq!(
            (reply.header(ETAG), reply.header("cache-control")),
            (None, Some("private, no-cache")),
            "{path}"
        );
    }
}

#[test]
fn a_view_is_kept_by_its_version_and_a_screen_of_many_services_not_at_all() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("apple", 300, 10);
    let placed = host.place(&order(&[("apple", 1)]));
    let (id, written) = (placed.ok()["id"].as_str().unwrap().to_owned(), position(&placed));

    let product = etag(&host.get("/products/apple"));
    assert_eq!(get_if_changed(&host, "/products/apple", &product, &written).status, 304);
    let details = host.get(&format!("/orders/{id}/details"));
    assert_eq!((details.ok()["unavailable"].clone(), details.header(ETAG)), (json!([]), None));

    let report = format!("/reports/orders/{id}");
    let reported = etag(&get_at(&host, &report, &written));
    assert_eq!(get_if_changed(&host, &report, &reported, &written).status, 304);
    let shipped = position(&host.start_delivery(&id));
    let changed: Value = get_if_changed(&host, &report, &reported, &shipped).ok();
    assert_eq!(changed["id"], json!(id));
}

#[test]
fn a_client_that_waited_for_a_saga_can_read_its_end() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("apple", 300, 10);
    let taken = host.post("/orders", &[], &order(&[("apple", 1)]).json()).ok();
    let (id, saga) = (taken["id"].as_str().unwrap(), taken["saga"]["id"].as_str().unwrap());
    let ended = host.get_with(&format!("/sagas/{saga}"), &[SAGA_END]);
    assert_eq!(ended.ok()["state"], "completed");
    let reported = get_at(&host, &format!("/reports/orders/{id}"), &position(&ended)).ok();
    assert_eq!(reported["status"], "confirmed");
}
