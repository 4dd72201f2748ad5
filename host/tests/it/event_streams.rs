//! Streams of events: what a client selects, where it continues, and what its roles let it see.

use std::fs;

use serde_json::{Value, json};

use crate::common::Site;
use crate::common::http::Client;
use crate::common::shop::{configuration, names, order};

const JSON: (&str, &str) = ("accept", "application/json");

/// Returns the events that a query string selects, as the pages and as the stream have them.
fn selected(host: &Client, query: &str, count: usize) -> Vec<Value> {
    let (mut pages, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let page = host.get_with(&format!("/events?limit=3&after={after}&{query}"), &[JSON]).ok();
        pages.extend(page["items"].as_array().unwrap().clone());
        after = page["next"].clone();
    }
    let followed: Vec<_> = host.follow_selected(query).take(count).collect();
    assert_eq!(pages, followed, "{query}");
    pages
}

#[test]
fn a_client_gets_the_events_that_it_selects_and_those_that_follow() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 5, 100);
    host.register("pot", 7, 100);
    let correlation = [("x-request-id", "cart-7"), ("prefer", "wait=30")];
    let id = host.post("/orders", &correlation, &order(&[("tea", 1)]).json()).ok()["id"].clone();
    let id = id.as_str().unwrap();

    let of_order = selected(&host, &format!("stream=order/{id}"), 2);
    assert_eq!(names(&of_order), ["order-created", "order-confirmed"]);
    let of_product = selected(&host, "aggregate=product", 3);
    assert_eq!(names(&of_product), ["product-registered", "product-registered", "stock-reserved"]);
    assert_eq!(selected(&host, "service=inventory", 3), of_product);
    assert_eq!(names(&selected(&host, "event=stock-reserved", 1)), ["stock-reserved"]);
    let of_cart = selected(&host, "correlation=cart-7&service=order", 2);
    assert_eq!(of_cart, of_order);
    assert_eq!(selected(&host, "stream=product/tea&event=stock-reserved", 1)[0]["stream"], "product/tea");
    host.get_with("/events?service=nobody", &[JSON]).problem(404, "not-deployed");

    let mut later = host.follow_selected(&format!("stream=product/pot&after={}", host.head()));
    host.register("cup", 7, 100);
    host.post("/products/pot/add-stock", &[], &json!({"quantity": 1})).ok();
    assert_eq!(later.next().unwrap()["name"], "stock-added");
}

#[test]
fn a_stream_says_when_to_come_back_and_where_it_is_though_nothing_was_selected() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 5, 100);
    let head = host.head();
    let lines: Vec<_> = host.event_stream("event=never").take(4).collect();
    assert_eq!(lines, ["retry: 2000", "", &format!("id: {head}"), ""]);
    // A log that was put back since, or another one.
    let ahead = (head + 1).to_string();
    for headers in [[("last-event-id", &*ahead)], [("kontor-position", &*ahead)]] {
        let headers = [headers[0], ("prefer", "wait=0")];
        host.get_with("/events", &headers).problem(504, "position-ahead");
    }
    host.get_with(&format!("/events?after={ahead}"), &[JSON, ("prefer", "wait=0")])
        .problem(504, "position-ahead");
}

#[test]
fn a_caller_sees_the_events_of_what_its_roles_may_read() {
    let site = Site::new(&format!("{}[auth]\n", configuration()));
    let host = site.start();
    let operator = host.with_token(&fs::read_to_string(site.data().join("operator.token")).unwrap());
    let (clerk, customer) = (operator.signed_in("cleo", &["clerk"]), operator.signed_in("ann", &[]));
    operator.register("tea", 5, 100);
    let placed = operator.place(&order(&[("tea", 1)])).ok();
    assert_eq!(placed["state"]["status"], "confirmed");
    let seen: Vec<_> = clerk.follow_selected("").take(4).map(|event| event["name"].clone()).collect();
    assert_eq!(seen, ["order-created", "payment-authorized", "delivery-scheduled", "order-confirmed"]);
    assert_eq!(clerk.get_with("/events?aggregate=product", &[JSON]).ok()["items"], json!([]));
    assert!(operator.events(0).iter().any(|event| event["name"] == "product-registered"));
    customer.get_with("/events", &[JSON]).problem(403, "forbidden");
    host.get_with("/events", &[JSON]).problem(401, "unauthenticated");
}
