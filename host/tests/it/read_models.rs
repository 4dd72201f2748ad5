//! Read models as an operator sees and controls them. And each event takes effect in them once, whenever the
//! host is killed.

use std::collections::BTreeMap;
use std::thread;

use kontor::log::{EmbeddedLog, EventLog as _};
use kontor::model::{StreamId, Version};
use kontor_testkit::log::happened;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::common::http::Client;
use crate::common::shop::configuration;
use crate::common::{Ended, Host, Site, ended, kontor};

const INVENTORY: &str = "/admin/projections/inventory";

/// Appends two events for each item of `streams` to a log that no host has open. Requests could not add so
/// many within the time of a test.
fn record(site: &Site, streams: &[(&str, u64)]) {
    let log = EmbeddedLog::open(&site.data()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (product, additions) in streams {
        let stream = || StreamId::new("product", product).unwrap();
        let registered = ("product-registered", json!({"name": product, "unit_price": 5, "quantity": 10}));
        let added = vec![("stock-added", json!({"quantity": 1})); usize::try_from(*additions).unwrap()];
        for append in
            [happened(stream(), Version::START, &[registered]), happened(stream(), Version::new(1), &added)]
        {
            runtime.block_on(log.append(vec![append])).unwrap();
        }
    }
}

fn read_database(site: &Site) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(site.data().join("read/inventory-v1.db"), flags).unwrap()
}

/// Starts a host whose inventory read model has parked these products, because a row in the read database
/// blocks them. All others are projected.
fn with_parked(site: &Site, products: &[&str]) -> Host {
    let database = read_database(site);
    for product in products {
        database.execute("INSERT INTO products VALUES (?1, 'in the way', 0, 0, 0, 0)", [product]).unwrap();
    }
    drop(database);
    let host = site.start();
    caught_up(&host);
    host
}

/// Removes the rows that block these products.
fn make_room(site: &Site, products: &[&str]) {
    let database = read_database(site);
    for product in products {
        database.execute("DELETE FROM products WHERE id = ?1", [product]).unwrap();
    }
}

/// Returns a site with an empty read database and these streams in its log.
fn recorded(streams: &[(&str, u64)]) -> Site {
    let site = Site::new(&configuration());
    assert!(site.start().stop().success());
    record(&site, streams);
    site
}

/// Waits until the read model has every event.
fn caught_up(host: &Host) {
    host.get_with("/products", &[("kontor-position", &host.head().to_string())]).ok();
}

/// Returns the stock of each product in the read model.
fn stock(host: &Host) -> BTreeMap<String, u64> {
    let list = host.get_with("/products?limit=200", &[("kontor-position", &host.head().to_string())]).ok();
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| (item["id"].as_str().unwrap().to_owned(), item["available"].as_u64().unwrap())).collect()
}

/// Returns the stock of each product, computed from the log alone.
fn stock_in_the_log(host: &Host) -> BTreeMap<String, u64> {
    let mut stock = BTreeMap::new();
    for event in host.events(0) {
        let Some(product) = event["stream"].as_str().unwrap().strip_prefix("product/") else { continue };
        let product = product.to_owned();
        *stock.entry(product).or_default() += event["payload"]["quantity"].as_u64().unwrap();
    }
    stock
}

fn redrive(host: &Host, body: &Value) -> Value {
    host.post(&format!("{INVENTORY}/redrive"), &[], body).ok()
}

#[test]
fn what_is_parked_is_shown_and_can_be_redriven() {
    let site = recorded(&[("desk", 3), ("chair", 2), ("lamp", 1)]);
    let host = with_parked(&site, &["desk", "chair"]);

    let list = host.get("/admin/projections").ok();
    let services: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| &item["service"]).collect();
    assert_eq!(services, ["inventory", "report"]);
    let shown = host.get(INVENTORY).ok();
    let expected = json!({
        "service": "inventory", "version": 1, "position": 10, "lag_events": 0, "lag_ms": 0, "parked": 2,
    });
    assert_eq!(list["items"][0], expected);
    let parked: Vec<_> = shown["parked_streams"].as_array().unwrap().iter().collect();
    let facts = |parked: &Value| json!([parked["stream"], parked["position"], parked["skipped"]]);
    assert_eq!(facts(parked[0]), json!(["product/desk", 2, 3]));
    assert_eq!(facts(parked[1]), json!(["product/chair", 6, 2]));
    assert!(parked[0]["error"].as_str().unwrap().contains("UNIQUE"), "{}", parked[0]);
    let page = host.get(&format!("{INVENTORY}?after=2&limit=1")).ok();
    assert_eq!((&page["parked_streams"][0], &page["next"]), (parked[1], &json!(6)));
    let metrics = host.get("/metrics").text;
    for (metric, value) in [("parked_streams", 2), ("position", 10), ("lag_events", 0), ("lag_seconds", 0)] {
        let line = format!("kontor_projection_{metric}{{service=\"inventory\",version=\"1\"}} {value}");
        assert!(metrics.lines().any(|known| known == line), "{line} is missing in {metrics}");
    }

    // While the cause persists, they fail again. A redriven stream is projected again, the other one is not.
    assert_eq!(redrive(&host, &json!({})), json!({"streams": 0, "events": 0, "parked": 2}));
    make_room(&site, &["desk"]);
    let chosen = redrive(&host, &json!({"stream": "product/desk"}));
    assert_eq!(chosen, json!({"streams": 1, "events": 4, "parked": 0}));
    for product in ["desk", "chair"] {
        host.post(&format!("/products/{product}/add-stock"), &[], &json!({"quantity": 5})).ok();
    }
    assert_eq!((stock(&host)["desk"], stock(&host)["chair"]), (18, 0));
    make_room(&site, &["chair"]);
    assert_eq!(redrive(&host, &json!({})), json!({"streams": 1, "events": 4, "parked": 0}));
    assert_eq!(stock(&host), stock_in_the_log(&host));
    assert_eq!(host.get(INVENTORY).ok()["parked_streams"], json!([]));

    for (path, body, status, code) in [
        ("inventory", json!({"stream": "product/desk"}), 409, "stream-not-parked"),
        ("inventory", json!({"stream": "desk"}), 422, "invalid-payload"),
        ("inventory", json!({"streams": "all"}), 422, "invalid-payload"),
        ("payment", json!({}), 404, "not-found"),
    ] {
        host.post(&format!("/admin/projections/{path}/redrive"), &[], &body).problem(status, code);
    }
    host.get("/admin/projections/nobody").problem(404, "not-found");
}

#[test]
fn the_command_line_shows_and_redrives_as_the_host_does() {
    let site = recorded(&[("desk", 3)]);
    let host = with_parked(&site, &["desk"]);
    let ask = |arguments: &[&str]| ended(kontor(arguments).args(["--host", host.url()]));
    let printed = |arguments: &[&str]| {
        let Ended { status, stdout, stderr } = ask(arguments);
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
        stdout
    };
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();

    assert!(printed(&["projections"]).contains("inventory  1        -     5         -    1       -\n"));
    assert_eq!(json(printed(&["projections", "--json"])), host.get("/admin/projections").ok());
    assert!(printed(&["projections", "show", "inventory"]).contains("product/desk  2      3        "));
    make_room(&site, &["desk"]);
    let redriven = printed(&["projections", "redrive", "inventory", "--stream", "product/desk"]);
    assert_eq!(redriven, "4 events applied, 1 stream unparked\n");
    let Ended { status, stderr, .. } = ask(&["projections", "redrive", "order"]);
    assert_eq!(status.code(), Some(3));
    assert!(stderr.contains("There is no service order with a read model. (not-found)"), "{stderr}");
}

#[test]
fn each_event_of_a_redriven_stream_counts_once_however_often_the_host_is_killed() {
    const EVENTS: u64 = 5_000;
    let site = recorded(&[("desk", EVENTS)]);
    let mut host = with_parked(&site, &["desk"]);
    make_room(&site, &["desk"]);
    let database = read_database(&site);
    let skipped = || {
        let skipped = database.query_row("SELECT skipped FROM kontor_parked", [], |row| row.get::<_, u64>(0));
        skipped.unwrap_or(0)
    };

    let mut kills = 0;
    while skipped() > 0 {
        let before = skipped();
        let client = Client::clone(&host);
        let asked = thread::spawn(move || {
            client.try_send("POST", &format!("{INVENTORY}/redrive"), &[], "{}").map(|reply| reply.ok())
        });
        // In the middle of the stream: some of its events are applied.
        while skipped() == before {
            thread::yield_now();
        }
        host.kill();
        kills += u32::from(asked.join().unwrap().is_err());
        host = site.start();
    }
    assert!(kills > 1, "a redrive was killed {kills} times");
    redrive(&host, &json!({}));
    assert_eq!(stock(&host), stock_in_the_log(&host));
}

/// Waits until no build runs, and queries the read model all the while: every query is answered, and no
/// answer goes back behind the one before.
fn built(host: &Host) {
    let mut seen = 0;
    loop {
        let building = host.get(INVENTORY).ok()["building"].is_object();
        let answer = host.get("/products");
        answer.ok();
        let position = answer.header("kontor-position").unwrap().parse::<u64>().unwrap();
        assert!(position >= seen, "a query saw {position} after {seen}");
        seen = position;
        if !building {
            return;
        }
    }
}

/// Sets the stock of all products to a wrong value behind the host's back.
fn spoil(site: &Site) {
    read_database(site).execute("UPDATE products SET available = 999", []).unwrap();
}

#[test]
fn a_replay_puts_a_read_model_right_while_it_is_asked_and_goes_on() {
    let site = recorded(&[("desk", 10_000), ("chair", 10_000)]);
    let host = site.start();
    caught_up(&host);
    spoil(&site);

    let begun = host.post(&format!("{INVENTORY}/replay"), &[], &json!({}));
    assert_eq!((begun.status, &begun.ok()["building"]["version"]), (202, &json!(1)));
    host.post(&format!("{INVENTORY}/replay"), &[], &json!({})).problem(409, "replay-under-way");
    host.post("/products/desk/add-stock", &[], &json!({"quantity": 5})).ok();
    built(&host);
    assert_eq!(stock(&host), stock_in_the_log(&host));
    assert!(!site.data().join("read/inventory-v1.db").exists(), "what was replaced is removed");

    // The rebuilt database stays, and can be rebuilt again.
    assert!(host.stop().success());
    let host = site.start();
    let output = ended(kontor(&["replay", "inventory"]).args(["--host", host.url()]));
    assert!(output.stdout.starts_with("the read model of inventory is being rebuilt"), "{}", output.stderr);
    built(&host);
    assert_eq!(stock(&host), stock_in_the_log(&host));
    host.post("/admin/projections/payment/replay", &[], &json!({})).problem(404, "not-found");
}

#[test]
fn a_replay_from_a_time_knows_only_what_has_happened_since() {
    let site = recorded(&[("desk", 3)]);
    let host = site.start();
    for product in ["chair", "lamp"] {
        host.put(&format!("/products/{product}"), &json!({"name": product, "unit_price": 5, "quantity": 7}))
            .ok();
    }
    let of_chair = |event: &Value| event["stream"] == "product/chair";
    let from = host.events(0).into_iter().find(of_chair).unwrap()["time"].clone();
    let output = ended(
        kontor(&["replay", "inventory", "--from", from.as_str().unwrap()]).args(["--host", host.url()]),
    );
    assert!(output.stdout.contains("from the events since"), "{}", output.stderr);
    built(&host);
    host.post("/products/desk/add-stock", &[], &json!({"quantity": 5})).ok();
    host.post("/products/chair/add-stock", &[], &json!({"quantity": 5})).ok();
    let since = BTreeMap::from([("chair".to_owned(), 12), ("lamp".to_owned(), 7)]);
    assert_eq!((stock(&host), &host.get(INVENTORY).ok()["from"]), (since.clone(), &from));

    // It stays so after a restart, until it is rebuilt from all events.
    assert!(host.stop().success());
    let host = site.start();
    assert_eq!((stock(&host), &host.get(INVENTORY).ok()["from"]), (since, &from));
    for (body, status, code) in [
        (json!({"from": "9999-01-01T00:00:00Z"}), 409, "time-not-come"),
        (json!({"from": "yesterday"}), 422, "invalid-payload"),
    ] {
        host.post(&format!("{INVENTORY}/replay"), &[], &body).problem(status, code);
    }
    host.post(&format!("{INVENTORY}/replay"), &[], &json!({})).ok();
    built(&host);
    assert_eq!((stock(&host), &host.get(INVENTORY).ok()["from"]), (stock_in_the_log(&host), &Value::Null));
}

#[test]
fn a_replay_goes_on_after_a_kill_and_each_event_counts_once() {
    /// Each kill comes some pages after the previous start; the replay has twenty pages.
    const KILLS: usize = 3;
    let site = recorded(&[("desk", 10_000), ("chair", 10_000)]);
    let mut host = site.start();
    caught_up(&host);
    spoil(&site);
    host.post(&format!("{INVENTORY}/replay"), &[], &json!({})).ok();
    for kill in 0..KILLS {
        let building = host.get(INVENTORY).ok()["building"].is_object();
        assert!(building, "the replay was over before the host was killed for the {kill}th time");
        host.kill();
        host = site.start();
    }
    built(&host);
    assert_eq!(stock(&host), stock_in_the_log(&host));
}
