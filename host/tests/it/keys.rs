//! The keys of commands: the first answer to a key is its answer, for as long as it is kept.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use serde_json::json;

use crate::common::http::Reply;
use crate::common::shop::{SAGA_END, configuration, names, new_key, order};
use crate::common::{Host, Site, audit};
use crate::shop::{APPLE, PEAR, apples_and_a_pear, open_shop, outcome};

#[test]
fn an_order_sent_again_with_its_key_is_the_same_order() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let key = new_key();
    let headers = [SAGA_END, ("idempotency-key", &*key)];
    let body = apples_and_a_pear().json();

    let at_once = 8;
    let start = Barrier::new(at_once);
    let answers: BTreeSet<String> = thread::scope(|scope| {
        let send = || {
            start.wait();
            host.post("/orders", &headers, &body)
        };
        let senders: Vec<_> = (0..at_once).map(|_| scope.spawn(send)).collect();
        senders.into_iter().map(|sender| fixed_parts(&sender.join().unwrap())).collect()
    });
    let later = host.post("/orders", &headers, &body);
    assert_eq!(answers, BTreeSet::from([fixed_parts(&later)]));
    assert_eq!((later.status, &later.json()["id"]), (201, &json!(key)));
    assert_eq!(names(&host.history(&format!("order/{key}"))), ["order-created", "order-confirmed"]);
    assert_eq!(host.stock(APPLE), (8, 2));

    // A client that does not wait for the saga gets the reply to the command, the second time as well.
    let recorded = host.post("/orders", &headers[1..], &body);
    assert_eq!((recorded.status, &recorded.json()["version"]), (202, &json!(1)));
    assert_eq!(recorded.json()["state"]["status"], "pending");
    assert_eq!(recorded.json()["saga"]["state"], "completed");

    let another = order(&[(APPLE, 3)]).json();
    host.post("/orders", &headers, &another).problem(422, "idempotency-key-reused");
    host.post("/orders", &headers, &body).ok();
    audit::check(&host);
}

#[test]
fn the_first_answer_to_a_key_is_its_answer() {
    let site = Site::new(&configuration());
    let mut host = open_shop(&site);
    let remove = |host: &Host, key: &str, quantity: u64| {
        host.post("/products/pear/remove-stock", &[("idempotency-key", key)], &json!({"quantity": quantity}))
    };
    let place = |host: &Host, key: &str| {
        host.post("/orders", &[SAGA_END, ("idempotency-key", key)], &order(&[(PEAR, 7)]).json())
    };
    let (key, order_key) = (new_key(), new_key());
    let refused = remove(&host, &key, 7).problem(409, "insufficient-stock");
    assert_eq!(outcome(&place(&host, &order_key)), "insufficient-stock");
    let before = host.events(0);
    host.post("/products/pear/add-stock", &[], &json!({"quantity": 10})).ok();

    for _ in 0..2 {
        assert_eq!(remove(&host, &key, 7).problem(409, "insufficient-stock"), refused);
        assert_eq!(outcome(&place(&host, &order_key)), "insufficient-stock");
        remove(&host, &key, 1).problem(422, "idempotency-key-reused");
        host.kill();
        host = site.start();
    }
    assert_eq!(host.events(0).len(), before.len() + 1, "only the stock was added");
    remove(&host, &new_key(), 7).ok();
    assert_eq!(host.stock(PEAR), (8, 0));
    audit::check(&host);
}

/// After a restart no key is known without a look at the log, so each command is decided first.
#[test]
fn a_key_of_before_a_restart_has_the_answer_of_then() {
    let site = Site::new(&configuration());
    let mut host = open_shop(&site);
    let [add, remove, place] = [new_key(), new_key(), new_key()];
    let stock = |host: &Host, command: &str, key: &str, quantity: u64| {
        let path = format!("/products/pear/{command}");
        host.post(&path, &[("idempotency-key", key)], &json!({"quantity": quantity}))
    };
    let order = |host: &Host| {
        host.post("/orders", &[SAGA_END, ("idempotency-key", &*place)], &order(&[(APPLE, 2)]).json())
    };
    let added = fixed_parts(&stock(&host, "add-stock", &add, 3));
    let removed = fixed_parts(&stock(&host, "remove-stock", &remove, 7));
    let placed = fixed_parts(&order(&host));
    let before = host.events(0);

    for _ in 0..2 {
        host.kill();
        host = site.start();
        // Today it would be accepted.
        assert_eq!(fixed_parts(&stock(&host, "add-stock", &add, 3)), added);
        // Today it would be rejected.
        assert_eq!(fixed_parts(&stock(&host, "remove-stock", &remove, 7)), removed);
        assert_eq!(fixed_parts(&order(&host)), placed);
        stock(&host, "add-stock", &add, 4).problem(422, "idempotency-key-reused");
        stock(&host, "remove-stock", &remove, 1).problem(422, "idempotency-key-reused");
    }
    assert_eq!(host.events(0), before);

    // Repetitions beside new commands keep none of these from their effect.
    host.kill();
    host = site.start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(fixed_parts(&stock(&host, "add-stock", &add, 3)), added));
            scope.spawn(|| stock(&host, "add-stock", &new_key(), 1).ok());
        }
    });
    assert_eq!(host.stock(PEAR), (5, 0));
    audit::check(&host);
}

#[test]
fn equal_json_is_the_same_payload_however_it_is_written() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let key = new_key();
    let add = |text: &str| {
        let headers = [("idempotency-key", &*key), ("content-type", "application/json")];
        host.send("POST", "/products/pear/add-stock", &headers, text)
    };
    for text in [r#"{"quantity":3}"#, r#" { "quantity" : 3 }"#, r#"{"\u0071uantity":3.0}"#] {
        assert_eq!(add(text).ok()["version"], json!(2));
    }
    add(r#"{"quantity":4}"#).problem(422, "idempotency-key-reused");
    assert_eq!(host.stock(PEAR), (8, 0));
}

fn fixed_parts(reply: &Reply) -> String {
    let body = reply.ok();
    json!([reply.status, body["id"], body["version"], body["events"], body["saga"]["id"]]).to_string()
}
