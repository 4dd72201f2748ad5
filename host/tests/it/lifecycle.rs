//! The life of a confirmed order: it is changed, deleted, shipped, delivered. And each way in which that is
//! rejected, with the steps undone and their order.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::common::gateway::Gateway;
use crate::common::http::{Client, Reply};
use crate::common::shop::{CARD_LIMIT, SAGA_END, UNDELIVERABLE, Wanted, configuration, order};
use crate::common::{Host, Site, audit};

/// Unit price 300, stock 10.
const APPLE: &str = "apple";
/// Unit price 250, stock 5.
const PEAR: &str = "pear";
/// A product of which a card pays for one, but not for two.
const BOAT: &str = "boat";

fn open_shop(site: &Site) -> Host {
    let host = site.start();
    host.register(APPLE, 300, 10);
    host.register(PEAR, 250, 5);
    host.register(BOAT, CARD_LIMIT - 10_000, 3);
    host
}

/// Places an order that must be confirmed. Returns its id.
fn confirmed(host: &Client, wanted: &Wanted) -> String {
    let placed = host.place(wanted).ok();
    assert_eq!(placed["state"]["status"], "confirmed", "{placed}");
    placed["id"].as_str().unwrap().to_owned()
}

/// Returns the events after a position: `order-created`, and `stock-reserved apple` for products.
fn story(host: &Client, after: u64) -> Vec<String> {
    let line = |event: &Value| {
        let (kind, id) = event["stream"].as_str().unwrap().split_once('/').unwrap();
        let name = event["name"].as_str().unwrap();
        match kind {
            "saga" => None,
            "product" => Some(format!("{name} {id}")),
            _ => Some(name.to_owned()),
        }
    };
    host.events(after).iter().filter_map(line).collect()
}

/// Returns the status of a reply and the end of its saga: the state, and the reason if there is one.
fn ending(reply: &Reply) -> (u16, Value, Value) {
    let body = reply.ok();
    (reply.status, body["saga"]["state"].clone(), body["state"]["reason"]["code"].clone())
}

/// Returns everything that clients see of an order, except why its last change was not made.
fn seen(host: &Client, id: &str) -> [Value; 5] {
    let mut order = host.get(&format!("/orders/{id}")).ok();
    order["reason"] = Value::Null;
    let payment = host.get(&format!("/payments/{id}")).ok();
    let delivery = host.get(&format!("/deliveries/{id}")).ok();
    let products = [APPLE, BOAT].map(|id| host.get(&format!("/products/{id}")).ok());
    let [apple, boat] = products;
    [order, payment, delivery, apple, boat]
}

#[test]
fn an_order_is_changed() {
    let mixed: &[(&str, &str)] = &[("card", "0.9"), ("points", "0.1")];
    // The new order, its total and payments, and the events between the hold and the resumption of the
    // delivery.
    let table: [(Wanted, &[u64], &[&str]); 5] = [
        (
            order(&[(APPLE, 5), (PEAR, 1)]).paid(mixed),
            &[1575, 175],
            &["reservation-changed apple", "payment-changed", "order-updated"],
        ),
        (
            order(&[(PEAR, 1), (APPLE, 1)]).paid(mixed),
            &[495, 55],
            &["payment-changed", "order-updated", "reservation-changed apple"],
        ),
        (
            order(&[(PEAR, 1), (APPLE, 1)]).paid(&[("points", "0.5"), ("card", "0.5")]),
            &[275, 275],
            &["payment-changed", "order-updated"],
        ),
        (
            order(&[(PEAR, 4), (APPLE, 1)]),
            &[1300],
            &["reservation-changed pear", "payment-changed", "order-updated"],
        ),
        (order(&[(PEAR, 4)]), &[1000], &["payment-changed", "order-updated", "stock-released apple"]),
    ];
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let id = confirmed(&host, &order(&[(APPLE, 2), (PEAR, 1)]).paid(mixed));
    for (wanted, amounts, between) in table {
        let head = host.head();
        let changed = host.change(&id, &wanted);
        assert_eq!(ending(&changed), (200, json!("completed"), Value::Null), "{wanted:?}");
        let expected =
            [&["order-update-requested", "delivery-held"], between, &["delivery-resumed"]].concat();
        assert_eq!(story(&host, head), expected, "{wanted:?}");

        let state = &changed.json()["state"];
        let ordered = state["lines"].as_array().unwrap().iter();
        let ordered: Vec<_> = ordered.map(|line| json!([line["product_id"], line["quantity"]])).collect();
        assert_eq!(json!(ordered), json!(wanted.lines));
        let paid = wanted.payment.iter().zip(amounts);
        let paid: Vec<_> =
            paid.map(|((method, _), amount)| json!({"method": method, "amount": amount})).collect();
        assert_eq!(state["payment"], json!(paid));
        audit::check(&host);
    }
    assert_eq!((host.stock(APPLE), host.stock(PEAR)), ((10, 0), (1, 4)));
}

#[test]
fn a_change_that_cannot_be_made_leaves_the_order_as_it_was() {
    let hold = ["order-update-requested", "delivery-held"];
    let resume = ["delivery-resumed", "order-update-reverted"];
    let boat = "reservation-changed boat";
    let apple = "reservation-changed apple";
    // The new order, the reason for the rejection, and the events between the hold of the delivery and its
    // resumption.
    let table: [(Wanted, &str, &[&str]); 5] = [
        (order(&[(APPLE, 11), (BOAT, 1)]), "insufficient-stock", &[]),
        (order(&[(APPLE, 3), (BOAT, 4)]), "insufficient-stock", &[apple, apple]),
        (order(&[(APPLE, 2), (BOAT, 2)]), "card-declined", &[boat, boat]),
        (order(&[(APPLE, 1), (BOAT, 2)]), "card-declined", &[boat, boat]),
        (order(&[(APPLE, 3), (BOAT, 1)]).paid(&[("points", "1")]), "insufficient-points", &[apple, apple]),
    ];
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let id = confirmed(&host, &order(&[(APPLE, 2), (BOAT, 1)]));
    let before = seen(&host, &id);
    for (wanted, reason, between) in table {
        let head = host.head();
        let changed = host.change(&id, &wanted);
        assert_eq!(ending(&changed), (200, json!("compensated"), json!(reason)), "{wanted:?}");
        assert_eq!(story(&host, head), [&hold, between, &resume].concat(), "{wanted:?}");
        assert_eq!(seen(&host, &id), before, "{wanted:?}");
        audit::check(&host);
    }
    let changed = host.change(&id, &order(&[(APPLE, 3), (BOAT, 1)]));
    assert_eq!(ending(&changed), (200, json!("completed"), Value::Null), "the reason is one of the past");
}

#[test]
fn an_order_is_deleted_and_what_it_held_is_free() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let id = confirmed(&host, &order(&[(APPLE, 2), (PEAR, 1)]));
    let head = host.head();
    let deleted = host.delete(&id);
    assert_eq!(ending(&deleted), (200, json!("completed"), Value::Null));
    assert_eq!(deleted.json()["state"]["status"], "deleted");
    let mut events = story(&host, head);
    events[4..].sort();
    let expected = [
        "order-delete-requested",
        "delivery-cancelled",
        "payment-cancelled",
        "order-deleted",
        "stock-released apple",
        "stock-released pear",
    ];
    assert_eq!(events, expected);
    assert_eq!((host.stock(APPLE), host.stock(PEAR)), ((10, 0), (5, 0)));
    audit::check(&host);
}

#[test]
fn an_order_is_sent_out_and_delivered() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let id = confirmed(&host, &order(&[(APPLE, 2), (PEAR, 1)]));
    let head = host.head();
    let started = host.start_delivery(&id);
    assert_eq!(ending(&started), (200, json!("completed"), Value::Null));
    assert_eq!(started.json()["state"]["status"], "in-transit");
    let mut events = story(&host, head);
    events[1..3].sort();
    let expected =
        ["delivery-start-requested", "stock-shipped apple", "stock-shipped pear", "delivery-started"];
    assert_eq!(events, expected);
    let apple = host.get("/products/apple").ok();
    assert_eq!(
        (&apple["available"], &apple["reserved"], &apple["shipped"]),
        (&json!(8), &json!(0), &json!(2))
    );
    audit::check(&host);

    let delivered = host.complete_delivery(&id);
    assert_eq!(delivered.ok()["state"]["status"], "delivered");
    assert_eq!(story(&host, head)[4..], ["delivery-completed"]);
    audit::check(&host);
}

#[test]
fn an_order_that_is_under_way_is_neither_changed_nor_deleted() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let id = confirmed(&host, &order(&[(APPLE, 2), (BOAT, 1)]));
    host.start_delivery(&id).ok();
    for status in ["in-transit", "delivered"] {
        let (before, head) = (seen(&host, &id), host.head());
        assert_eq!(before[2]["status"], status);
        host.change(&id, &order(&[(APPLE, 1), (BOAT, 1)])).problem(409, "delivery-under-way");
        host.start_delivery(&id).problem(409, "delivery-under-way");
        assert_eq!(story(&host, head), [""; 0], "what cannot be is refused at once");

        let deleted = host.delete(&id);
        assert_eq!(ending(&deleted), (200, json!("compensated"), json!("delivery-under-way")));
        assert_eq!(story(&host, head), ["order-delete-requested", "order-delete-reverted"]);
        assert_eq!(seen(&host, &id), before);
        audit::check(&host);
        host.complete_delivery(&id);
    }
}

#[test]
fn what_cannot_be_is_refused_at_once_and_changes_nothing() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let good = order(&[(APPLE, 1)]);
    let ordered = confirmed(&host, &order(&[(APPLE, 2), (BOAT, 1)]));
    let deleted = confirmed(&host, &good);
    host.delete(&deleted).ok();
    let cancelled = host.place(&good.clone().sent_to(UNDELIVERABLE)).ok();
    let cancelled = cancelled["id"].as_str().unwrap().to_owned();
    let nobody = "nobodys".to_owned();
    let change = |id: &String, wanted: Wanted| ("PUT", format!("/orders/{id}"), wanted.change());
    let delete = |id: &String| ("DELETE", format!("/orders/{id}"), json!({}));
    let delivery = |id: &String, act: &str| ("POST", format!("/deliveries/{id}/{act}"), json!({}));
    let table = [
        (change(&ordered, order(&[])), 409, "no-lines"),
        (change(&ordered, order(&[(APPLE, 1), (APPLE, 2)])), 409, "duplicate-product"),
        (change(&ordered, order(&[(APPLE, 0)])), 409, "invalid-quantity"),
        (change(&ordered, order(&[(APPLE, 2), (PEAR, 1)])), 409, "product-not-in-order"),
        (change(&ordered, good.clone().paid(&[("card", "0.9")])), 409, "invalid-payment-shares"),
        (change(&ordered, good.clone().paid(&[("card", "0.5"), ("card", "0.5")])), 409, "duplicate-method"),
        (change(&deleted, good.clone()), 409, "order-not-confirmed"),
        (change(&cancelled, good.clone()), 409, "order-not-confirmed"),
        (change(&nobody, good), 404, "not-found"),
        (delete(&deleted), 409, "order-not-confirmed"),
        (delete(&cancelled), 409, "order-not-confirmed"),
        (delete(&nobody), 404, "not-found"),
        (delivery(&deleted, "start"), 409, "delivery-under-way"),
        (delivery(&cancelled, "start"), 404, "not-found"),
        (delivery(&nobody, "start"), 404, "not-found"),
        (delivery(&ordered, "complete"), 409, "delivery-not-in-transit"),
        (delivery(&deleted, "complete"), 409, "delivery-not-in-transit"),
        (delivery(&nobody, "complete"), 404, "not-found"),
    ];
    let head = host.head();
    for ((method, path, body), status, code) in table {
        host.send(method, &path, &[SAGA_END], &body.to_string()).problem(status, code);
        assert_eq!(host.events(head), Vec::<Value>::new(), "{method} {path} {code}");
    }
    audit::check(&host);
}

/// Returns the configuration of a shop that pays through a gateway and waits for its answer as long as it
/// takes.
fn with_gateway(gateway: &Gateway) -> String {
    let url = gateway.url();
    let payment = format!("[services.payment]\ngateway-url = '{url}'");
    let services = configuration().replace("[services.payment]", &payment);
    format!(
        "{services}\n\
         [retries.steps]\n'change-order/pay' = {{ attempts = 100_000, \
         first_wait_ms = 20, longest_wait_ms = 20 }}\n\
         [[grants.payment.http]]\norigin = '{url}'\nmethods = ['POST', 'PUT', 'DELETE']\nprivate = true\n"
    )
}

#[test]
fn an_order_that_is_being_changed_is_neither_sent_out_nor_changed_nor_deleted() {
    let mut gateway = Gateway::open();
    let site = Site::new(&with_gateway(&gateway));
    let host = open_shop(&site);
    let id = confirmed(&host, &order(&[(APPLE, 2), (BOAT, 1)]));
    let head = host.head();
    gateway.go_down();
    let more = order(&[(APPLE, 3), (BOAT, 1)]);
    let body = host.send("PUT", &format!("/orders/{id}"), &[], &more.change().to_string()).ok();
    host.follow(head).find(|event| event["name"] == "delivery-held").unwrap();

    host.start_delivery(&id).problem(409, "delivery-under-way");
    host.change(&id, &more).problem(409, "order-not-confirmed");
    host.delete(&id).problem(409, "order-not-confirmed");

    gateway.come_back();
    let saga = host.get_with(&format!("/sagas/{}", body["saga"]["id"].as_str().unwrap()), &[SAGA_END]).ok();
    assert_eq!(saga["state"], "completed");
    let expected = [
        "order-update-requested",
        "delivery-held",
        "reservation-changed apple",
        "payment-changed",
        "order-updated",
        "delivery-resumed",
    ];
    assert_eq!(story(&host, head), expected);
    audit::check(&host);
}

#[test]
fn an_order_whose_money_is_not_given_back_is_not_deleted() {
    let gateway = Gateway::open();
    let site = Site::new(&with_gateway(&gateway));
    let host = open_shop(&site);
    let id = confirmed(&host, &order(&[(APPLE, 2), (BOAT, 1)]));
    let (before, head) = (seen(&host, &id), host.head());
    gateway.answers("DELETE", &id, &[409]);
    assert_eq!(ending(&host.delete(&id)), (200, json!("compensated"), json!("refund-refused")));
    let expected =
        ["order-delete-requested", "delivery-cancelled", "delivery-scheduled", "order-delete-reverted"];
    assert_eq!(story(&host, head), expected);
    assert_eq!(seen(&host, &id), before);
    audit::check(&host);

    assert_eq!(ending(&host.delete(&id)), (200, json!("completed"), Value::Null));
    audit::check(&host);
}

/// Runs acts at the same moment. Returns the outcome of each: the state of its saga, or the code of its
/// rejection.
fn at_once<const N: usize>(acts: [&(dyn Fn() -> Reply + Sync); N]) -> [String; N] {
    let start = Barrier::new(N);
    let act = |act: &(dyn Fn() -> Reply + Sync)| {
        start.wait();
        let reply = act();
        let body = reply.json();
        let end = if reply.status == 409 { &body["code"] } else { &body["saga"]["state"] };
        end.as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    };
    thread::scope(|scope| {
        let acts = acts.map(|one| scope.spawn(move || act(one)));
        acts.map(|end| end.join().unwrap())
    })
}

#[test]
fn of_two_changes_at_once_one_is_made_and_the_other_waits_its_turn_or_is_refused() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let id = confirmed(&host, &order(&[(APPLE, 2), (PEAR, 2)]));
    let client = Client::clone(&host);
    for _ in 0..10 {
        let more = || client.change(&id, &order(&[(APPLE, 3), (PEAR, 1)]));
        let less = || client.change(&id, &order(&[(APPLE, 1), (PEAR, 3)]));
        let ends = at_once([&more, &less]);
        assert!(ends.contains(&"completed".to_owned()), "{ends:?}");
        assert!(
            ends.iter()
                .all(|end| ["completed", "order-not-confirmed", "delivery-under-way"].contains(&&**end)),
            "{ends:?}"
        );
        audit::check(&host);
    }
}

#[test]
fn a_change_a_deletion_and_a_start_at_once_never_both_send_out_and_delete() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    host.register("plum", 100, 1_000);
    let client = Client::clone(&host);
    for _ in 0..15 {
        let id = confirmed(&host, &order(&[("plum", 2)]));
        let change = || client.change(&id, &order(&[("plum", 3)]));
        let delete = || client.delete(&id);
        let start = || client.start_delivery(&id);
        let [changed, deleted, started] = at_once([&change, &delete, &start]);
        let ends = format!("changed: {changed}, deleted: {deleted}, started: {started}");

        let (done, undone) = ("completed", ["compensated", "order-not-confirmed", "delivery-under-way"]);
        assert!(
            [&changed, &deleted, &started].iter().all(|end| *end == done || undone.contains(&&***end)),
            "{ends}"
        );
        assert!(!(deleted == done && started == done), "{ends}");
        let status = if deleted == done { "deleted" } else { "confirmed" };
        let order = host.get(&format!("/orders/{id}")).ok();
        assert_eq!(order["status"], status, "{ends}");
        let delivery = host.get(&format!("/deliveries/{id}")).ok();
        assert_eq!(delivery["status"] == "in-transit", started == done, "{ends}");
        let quantity = if changed == done { 3 } else { 2 };
        assert_eq!(order["lines"][0]["quantity"], quantity, "{ends}");
    }
    audit::check(&host);
}
