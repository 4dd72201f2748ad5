//! The shop over HTTP as its users see it: orders are taken, confirmed or cancelled, and reported.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::common::http::{Client, Reply};
use crate::common::shop::{
    CARD_LIMIT, POINTS_LIMIT, SAGA_END, UNDELIVERABLE, Wanted, configuration, names, order,
};
use crate::common::{Host, Site, audit};

/// Unit price 300, stock 10.
pub(crate) const APPLE: &str = "apple";
/// Unit price 250, stock 5.
pub(crate) const PEAR: &str = "pear";
/// A product so expensive that a card is declined.
const YACHT: &str = "yacht";
/// A product for which nobody has enough points.
const VILLA: &str = "villa";

pub(crate) fn open_shop(site: &Site) -> Host {
    let host = site.start();
    host.register(APPLE, 300, 10);
    host.register(PEAR, 250, 5);
    host.register(YACHT, CARD_LIMIT + 1, 1);
    host.register(VILLA, POINTS_LIMIT + 1, 1);
    host
}

pub(crate) fn apples_and_a_pear() -> Wanted {
    order(&[(APPLE, 2), (PEAR, 1)]).paid(&[("card", "0.9"), ("points", "0.1")])
}

#[test]
fn an_order_is_taken_at_once_and_then_confirmed() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);

    let taken = host.post("/orders", &[], &apples_and_a_pear().json());
    let body = taken.ok();
    let (saga, id) = (body["saga"]["id"].as_str().unwrap(), body["id"].as_str().unwrap());
    assert_eq!((taken.status, &body["saga"]["state"]), (202, &json!("running")));
    assert_eq!(taken.header("location"), Some(&*format!("/sagas/{saga}")));
    assert_eq!(taken.header("link"), Some(&*format!("</orders/{id}>; rel=\"about\"")));
    assert_eq!((&body["version"], &body["events"]), (&json!(1), &json!(["order-created"])));
    let expected = json!({
        "id": id, "user_id": "ada", "status": "pending", "total": 850, "reason": null,
        "lines": [
            {"product_id": APPLE, "name": "A apple", "quantity": 2, "unit_price": 300, "amount": 600},
            {"product_id": PEAR, "name": "A pear", "quantity": 1, "unit_price": 250, "amount": 250},
        ],
        "payment": [{"method": "card", "amount": 765}, {"method": "points", "amount": 85}],
        "address": {"region": "north", "line": "1 Quay Street"},
    });
    assert_eq!(body["state"], expected);

    // Its address answers from the start, before and after the saga begins.
    assert_eq!(host.get(&format!("/sagas/{saga}")).ok()["name"], "place-order");
    let ended = host.get_with(&format!("/sagas/{saga}"), &[SAGA_END]).ok();
    assert_eq!((&ended["name"], &ended["state"]), (&json!("place-order"), &json!("completed")));
    assert_eq!(host.get(&format!("/orders/{id}")).ok()["status"], "confirmed");
    assert_eq!((host.stock(APPLE), host.stock(PEAR)), ((8, 2), (4, 1)));
    let payment = json!({"id": id, "status": "authorized", "amount": 850, "methods": expected["payment"]});
    assert_eq!(host.get(&format!("/payments/{id}")).ok(), payment);
    let delivery = json!({"id": id, "status": "preparing", "address": expected["address"]});
    assert_eq!(host.get(&format!("/deliveries/{id}")).ok(), delivery);
    audit::check(&host);
}

#[test]
fn a_saga_that_never_was_is_not_waited_for() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    host.get_with("/sagas/nobodys", &[SAGA_END]).problem(404, "not-found");
}

#[test]
fn a_client_that_waits_gets_the_end_of_its_saga() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);

    let placed = host.post("/orders", &[("prefer", "wait=5")], &apples_and_a_pear().json());
    let body = placed.ok();
    assert_eq!(placed.status, 201);
    assert_eq!(placed.header("preference-applied"), Some("wait=5"));
    assert_eq!(placed.header("location"), Some(&*format!("/orders/{}", body["id"].as_str().unwrap())));
    assert_eq!((&body["state"]["status"], &body["version"]), (&json!("confirmed"), &json!(2)));
    assert_eq!(body["saga"]["state"], "completed");
}

#[test]
fn an_order_for_more_than_there_is_is_rejected_at_once() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let head = host.head();

    let refused = host.place(&order(&[(APPLE, 1), (PEAR, 6)])).problem(409, "insufficient-stock");
    assert_eq!(refused["details"], json!({"product_id": PEAR, "available": 5}));
    assert_eq!(host.events(head), Vec::<Value>::new());
}

#[test]
fn an_order_that_cannot_be_fulfilled_is_cancelled_with_the_reason() {
    let nowhere = apples_and_a_pear().sent_to(UNDELIVERABLE);
    let too_dear = order(&[(APPLE, 2), (YACHT, 1)]);
    let too_few_points = order(&[(VILLA, 1), (PEAR, 1)]).paid(&[("points", "1")]);
    let paid_back: &[&str] = &["payment-authorized", "payment-cancelled"];
    // The order, the reason for its cancellation, the payment's status, and the completed steps.
    let table: [(Wanted, &str, &[&str], &[&str]); 3] = [
        (nowhere, "undeliverable", paid_back, &["reserve-apple", "reserve-pear", "pay"]),
        (too_dear, "card-declined", &[], &["reserve-apple", "reserve-yacht"]),
        (too_few_points, "insufficient-points", &[], &["reserve-villa", "reserve-pear"]),
    ];
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    for (wanted, reason, payment, steps) in table {
        let placed = host.place(&wanted).ok();
        let id = placed["id"].as_str().unwrap();
        assert_eq!(placed["state"]["status"], "cancelled", "{reason}");
        assert_eq!(placed["state"]["reason"]["code"], reason);
        assert_eq!(host.stock(APPLE), (10, 0), "{reason}");
        assert_eq!(host.stock(PEAR), (5, 0), "{reason}");

        assert_eq!(names(&host.history(&format!("order/{id}"))), ["order-created", "order-cancelled"]);
        for (product, quantity) in &wanted.lines {
            let history = host.history(&format!("product/{product}"));
            let [reserved, released] = &history[history.len() - 2..] else { panic!("{history:?}") };
            assert_eq!(names(&[reserved.clone(), released.clone()]), ["stock-reserved", "stock-released"]);
            for event in [reserved, released] {
                assert_eq!(event["payload"], json!({"order_id": id, "quantity": quantity}));
            }
        }
        match payment {
            [] => _ = host.get(&format!("/payments/{id}")).problem(404, "not-found"),
            events => assert_eq!(names(&host.history(&format!("payment/{id}"))), events),
        }
        host.get(&format!("/deliveries/{id}")).problem(404, "not-found");
        check_unwinding(&host, placed["saga"]["id"].as_str().unwrap(), reason, steps);
    }
    audit::check(&host);
}

/// Checks that the journal holds each completed step and then the undos in reverse order, the order itself
/// last.
fn check_unwinding(host: &Client, saga: &str, reason: &str, steps: &[&str]) {
    let status = host.get(&format!("/sagas/{saga}")).ok();
    assert_eq!((&status["state"], &status["reason"]["code"]), (&json!("compensated"), &json!(reason)));
    let journal = host.history(&format!("saga/{saga}"));
    let of = |kind: &str| -> Vec<&str> {
        let entries = journal.iter().filter(|entry| entry["name"] == kind);
        entries.map(|entry| entry["payload"]["name"].as_str().unwrap()).collect()
    };
    assert_eq!(of("step-done"), steps, "{reason}");
    assert_eq!(of("step-refused").len(), 1, "{reason}");
    let undone: Vec<&str> = steps.iter().rev().copied().chain(["trigger"]).collect();
    assert_eq!(of("undone"), undone, "{reason}");
    let kinds = names(&journal);
    assert_eq!((kinds.first(), kinds.last()), (Some(&"started"), Some(&"compensated")));
}

#[test]
fn of_two_orders_for_the_last_piece_exactly_one_gets_it() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    for round in 0..5 {
        let product = format!("last-{round}");
        host.register(&product, 100, 1);
        let start = Barrier::new(2);
        let place = || {
            start.wait();
            host.place(&order(&[(&product, 1)]))
        };
        let (one, other) = thread::scope(|scope| {
            let one = scope.spawn(place);
            (place(), one.join().unwrap())
        });
        let mut outcomes = [outcome(&one), outcome(&other)];
        outcomes.sort();
        assert_eq!(outcomes, ["confirmed", "insufficient-stock"]);
        assert_eq!(host.stock(&product), (0, 1));
    }
    audit::check(&host);
}

/// Returns `confirmed` or the reason why not. A late order is rejected at once; one at the same time is
/// cancelled.
pub(crate) fn outcome(placed: &Reply) -> String {
    let body = placed.json();
    let why = match placed.status {
        201 if body["state"]["status"] == "cancelled" => &body["state"]["reason"]["code"],
        201 => &body["state"]["status"],
        _ => &body["code"],
    };
    why.as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[test]
fn versions_are_compared_by_etags() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let more = json!({"quantity": 5});
    let add = |if_match| host.post("/products/apple/add-stock", &[("if-match", if_match)], &more);

    let added = add("\"1\"");
    assert_eq!((added.status, added.header("etag")), (200, Some("\"2\"")));
    let refused = add("\"1\"").problem(412, "version-mismatch");
    assert_eq!((&refused["expected_version"], &refused["actual_version"]), (&json!(1), &json!(2)));
    assert_eq!(add("*").header("etag"), Some("\"3\""));
    let nobody = host.post("/products/nothing/add-stock", &[("if-match", "*")], &more);
    nobody.problem(412, "version-mismatch");

    let seen = host.get("/products/apple");
    let tag = seen.header("etag").unwrap();
    let look = || host.get_with("/products/apple", &[("if-none-match", tag)]);
    let unchanged = look();
    assert_eq!((unchanged.status, unchanged.text.as_str(), unchanged.header("etag")), (304, "", Some(tag)));
    assert_eq!(add(tag).header("etag"), Some("\"4\""), "a view's tag is good for a command");
    let changed = look();
    assert_eq!((changed.status, &changed.json()["available"]), (200, &json!(25)));
}

#[test]
fn the_history_of_an_order_and_its_state_at_any_version_can_be_seen() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let placed = host.place(&apples_and_a_pear()).ok();
    let stream = format!("/streams/order/{}", placed["id"].as_str().unwrap());

    let history = host.get(&stream).ok();
    assert_eq!(names(history["items"].as_array().unwrap()), ["order-created", "order-confirmed"]);
    assert_eq!(history["items"][0]["payload"]["total"], 850);
    let (by, via) = (&history["items"][1]["actor"], &history["items"][1]["via"]);
    let saga = format!("saga:{}", placed["saga"]["id"].as_str().unwrap());
    assert_eq!((by, via), (&json!("anonymous"), &json!(saga)), "a saga acts for the caller that started it");
    let correlations: BTreeSet<_> =
        history["items"].as_array().unwrap().iter().map(|event| event["correlation_id"].as_str()).collect();
    assert_eq!(correlations.len(), 1, "what follows from a request carries its id");

    for (version, status) in [(1, "pending"), (2, "confirmed")] {
        let past = host.get(&format!("{stream}?at={version}")).ok();
        assert_eq!((&past["version"], &past["state"]["status"]), (&json!(version), &json!(status)));
    }
    host.get(&format!("{stream}?at=0")).problem(404, "not-found");
    host.get("/streams/order/nothing").problem(404, "not-found");
}

#[test]
fn a_report_knows_what_its_reader_has_written() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    // The last order is cancelled.
    for region in ["north", "south", UNDELIVERABLE] {
        let placed = host.place(&apples_and_a_pear().sent_to(region));
        let order = placed.ok()["state"].clone();
        let position = placed.header("kontor-position").unwrap();
        let path = format!("/reports/orders/{}", order["id"].as_str().unwrap());
        let answer = host.get_with(&path, &[("kontor-position", position)]);
        let answered_at: u64 = answer.header("kontor-position").unwrap().parse().unwrap();
        assert!(answered_at >= position.parse().unwrap());
        let report = answer.ok();
        for field in ["id", "user_id", "status", "lines", "total", "address", "reason"] {
            assert_eq!(report[field], order[field], "{field}");
        }
        let cancelled = order["status"] == "cancelled";
        let payment = if cancelled { "cancelled" } else { "authorized" };
        assert_eq!((&report["payment_status"], &report["payment"]), (&json!(payment), &order["payment"]));
        let delivery = if cancelled { Value::Null } else { json!("preparing") };
        assert_eq!(report["delivery_status"], delivery);
    }
    host.get("/reports/orders/nothing").problem(404, "not-found");
}

#[test]
fn orders_are_reported_and_shown_in_detail() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let cancelled = host.place(&apples_and_a_pear().sent_to(UNDELIVERABLE)).ok()["id"].clone();
    let placed = host.place(&apples_and_a_pear());
    let (id, position) = (placed.ok()["id"].clone(), placed.header("kontor-position").unwrap().to_owned());
    let read = |path: &str| host.get_with(path, &[("kontor-position", &position)]).ok();
    let found = |query: &str| {
        let orders = read(&format!("/reports/orders?{query}"));
        orders["items"].as_array().unwrap().iter().map(|order| order["id"].clone()).collect::<Vec<_>>()
    };

    assert_eq!(found("user_id=ada&product_id=apple"), [id.clone(), cancelled.clone()]);
    assert_eq!(found("status=confirmed"), std::slice::from_ref(&id));
    assert_eq!(found("status=cancelled&from=0&limit=1"), [cancelled]);
    host.get("/reports/orders?limit=201").problem(422, "invalid-arguments");

    let of = |product: &str, quantity: u64, amount: u64| {
        json!({
            "product_id": product, "name": format!("A {product}"),
            "orders": 1, "quantity": quantity, "amount": amount,
        })
    };
    let sold = json!({"items": [of(APPLE, 2, 600), of(PEAR, 1, 250)], "next": null});
    assert_eq!(read("/reports/sales?by=product"), sold);
    assert_eq!(read("/reports/sales?by=day")["items"][0]["amount"], 850);

    let details = host.get(&format!("/orders/{}/details", id.as_str().unwrap())).ok();
    assert_eq!(details["lines"], placed.ok()["state"]["lines"]);
    assert_eq!(
        details["payment"],
        json!({
            "status": "authorized", "amount": 850,
            "methods": [{"method": "card", "amount": 765}, {"method": "points", "amount": 85}],
        })
    );
    assert_eq!(
        (&details["delivery"], &details["unavailable"]),
        (&json!({"status": "preparing"}), &json!([]))
    );
    host.get("/orders/nothing/details").problem(404, "not-found");
}

#[test]
fn products_are_listed_page_by_page() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let last = host.register("quince", 100, 1);
    let position = last.header("kontor-position").unwrap();
    let page = |after: &str| {
        let page =
            host.get_with(&format!("/products?limit=2&after={after}"), &[("kontor-position", position)]).ok();
        let ids: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
        (json!(ids), page["next"].clone())
    };
    assert_eq!(page(""), (json!([APPLE, PEAR]), json!(PEAR)));
    assert_eq!(page(PEAR), (json!(["quince", VILLA]), json!(VILLA)));
    assert_eq!(page(VILLA), (json!([YACHT]), Value::Null));
}

#[test]
fn the_host_reports_on_itself() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    host.place(&apples_and_a_pear()).ok();

    assert_eq!(host.get("/healthz").ok(), json!({"status": "up"}));
    assert_eq!(host.get("/readyz").ok(), json!({"status": "ready"}));
    let metrics = host.get("/metrics").text;
    for name in ["kontor_http_requests_total", "kontor_http_request_seconds", "kontor_sagas_settled_total"] {
        assert!(
            metrics.contains(&format!("\n# TYPE {name} ")) || metrics.starts_with(&format!("# TYPE {name} ")),
            "{name}"
        );
    }

    let api = host.get("/openapi.json").ok();
    let plugins = host.get("/admin/plugins").ok();
    let plugins = plugins["items"].as_array().unwrap();
    let services: Vec<_> = plugins.iter().map(|plugin| plugin["service"].as_str().unwrap()).collect();
    assert_eq!(services, ["delivery", "inventory", "order", "payment", "report"]);
    for route in plugins.iter().flat_map(|plugin| plugin["routes"].as_array().unwrap()) {
        let (method, path) = (route["method"].as_str().unwrap(), route["path"].as_str().unwrap());
        let operation = &api["paths"][path][method.to_lowercase()];
        assert!(operation["operationId"].is_string(), "{method} {path} is missing in the API document");
    }

    let page = host.get("/");
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    for place in ["src=", "href=", "url(", "@import "] {
        for target in page.text.split(place).skip(1).map(|rest| rest.trim_start_matches(['"', '\''])) {
            assert!(!target.starts_with("http") && !target.starts_with("//"), "{place}{target:.80}");
        }
    }
}
