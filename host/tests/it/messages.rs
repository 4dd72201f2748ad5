//! NATS messages that become commands: each takes effect once, or becomes a dead letter until an operator
//! retries or discards it. And events that a service publishes on subjects of its own.

use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::deploy::{self, fixture};
use crate::common::nats::{header, publish, read};
use crate::common::{Host, Site, ended, kontor};

/// Returns a site with the fixture `parcels`, connected to NATS.
fn site(server: &NatsServer) -> (Site, TempDir) {
    deploy::site(&[("parcels", fixture("parcels"))], &format!("[nats]\nurl = '{}'\n", server.url()))
}

/// Waits for the first `count` events of this name.
fn events(host: &Host, name: &str, count: usize) -> Vec<Value> {
    host.follow(0).filter(|event| event["name"] == name).take(count).collect()
}

/// Waits until there are `count` dead letters. Returns them.
fn dead_letters(host: &Host, count: usize) -> Vec<Value> {
    loop {
        let page = host.get("/admin/dead-letters").ok();
        let letters = page["items"].as_array().unwrap();
        if letters.len() >= count {
            return letters.clone();
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_message_becomes_a_command_and_an_event_a_message() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let host = site.start();
    let messages = [
        // Rejected until the parcel exists.
        ("carrier.delivered", "m2", json!({"parcel": "A.1"})),
        ("carrier.A%2E1.received", "m1", json!({"grams": 700})),
    ];
    publish(&server.url(), &messages);
    let delivered = &events(&host, "parcel-delivered", 1)[0];
    assert_eq!((&delivered["stream"], &delivered["actor"]), (&json!("parcel/A.1"), &json!("nats")));
    assert_eq!(host.get("/parcels/A.1").ok(), json!({"id": "A.1", "grams": 700, "delivered": true}));
    let of_service = |message: &async_nats::jetstream::Message| message.subject.starts_with("shop.");
    let stream = read(&server.url(), "kontor-publications", |messages| messages.iter().any(of_service));
    let published = stream.iter().find(|message| of_service(message)).unwrap();
    assert_eq!(&*published.subject, "shop.parcels.A%2E1.delivered");
    assert_eq!(header(published, "ce-id"), delivered["id"].as_str().unwrap());
    assert_eq!(header(published, "Nats-Msg-Id"), "parcel/A.1/2");
}

#[test]
fn what_cannot_be_a_command_is_a_dead_letter_until_it_can() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let host = site.start();
    assert_eq!(host.get("/admin/dead-letters").ok(), json!({"items": [], "next": null}));
    let messages = [
        ("carrier.delivered", "m1", json!({"parcel": "A"})),
        ("carrier.delivered", "m2", json!({"parcel": "B"})),
        ("carrier.delivered", "m3", json!({"parcel": 7})),
        ("carrier.delivered", "m4", json!("no JSON at all")),
    ];
    publish(&server.url(), &messages);
    let mut letters = dead_letters(&host, 4);
    letters.sort_by_key(|letter| letter["message_id"].as_str().unwrap().to_owned());
    let shown: Vec<_> = letters
        .iter()
        .map(|letter| (&letter["problem"]["code"], &letter["deliveries"], &letter["payload"]))
        .collect();
    let expected = json!([
        ["not-found", 6, {"parcel": "A"}],
        ["not-found", 6, {"parcel": "B"}],
        ["invalid-payload", 1, {"parcel": 7}],
        ["invalid-json", 1, "no JSON at all"],
    ]);
    assert_eq!(json!(shown), expected);
    for parcel in ["A", "B"] {
        host.post(&format!("/parcels/{parcel}/receive"), &[], &json!({"grams": 1})).ok();
    }
    // One alone, and then all of the service.
    let redrive =
        |which: &str| ended(&mut kontor(&["dead-letters", "redrive", "--host", host.url(), which])).stdout;
    assert_eq!(redrive(&letters[0]["id"].to_string()), "1 dead letter processed\n");
    assert_eq!(host.get("/parcels/A").ok()["delivered"], true);
    let printed = redrive("--service=parcels");
    assert!(printed.starts_with("1 dead letter processed\n2 dead letters failed again:\n"), "{printed}");
    assert_eq!(host.get("/parcels/B").ok()["delivered"], true);
    assert_eq!(dead_letters(&host, 2).len(), 2);
    host.post("/admin/dead-letters/redrive", &[], &json!({"id": letters[0]["id"]})).problem(404, "not-found");

    // A message that can never be a command is discarded.
    let discard = |which: &str| {
        let line = ["dead-letters", "discard", "--reason", "no parcel", "--host", host.url(), which];
        ended(&mut kontor(&line))
    };
    assert_eq!(discard(&letters[2]["id"].to_string()).stdout, "1 dead letter discarded\n");
    assert_eq!(dead_letters(&host, 1), [letters[3].clone()]);
    assert!(discard(&letters[2]["id"].to_string()).stderr.contains("There is no dead letter with the id"));
    assert_eq!(discard("--service=parcels").stdout, "1 dead letter discarded\n");
    assert_eq!(dead_letters(&host, 0), Vec::<Value>::new());
}

#[test]
fn every_message_takes_effect_once_though_host_and_server_are_killed() {
    const PARCELS: usize = 300;
    let mut server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let mut host = site.start();
    let parcels: Vec<_> = (0..PARCELS).map(|parcel| format!("carrier.P-{parcel}.received")).collect();
    let messages: Vec<_> =
        parcels.iter().map(|subject| (&**subject, &**subject, json!({"grams": 1}))).collect();
    let (first, rest) = messages.split_at(PARCELS / 2);
    publish(&server.url(), first);
    events(&host, "parcel-received", 20);
    host.kill();
    let host = site.start();
    publish(&server.url(), &rest[..50]);
    server.kill();
    server.restart();
    publish(&server.url(), &rest[50..]);
    let mut received: Vec<_> = events(&host, "parcel-received", PARCELS)
        .iter()
        .map(|event| event["stream"].as_str().unwrap().to_owned())
        .collect();
    received.sort();
    received.dedup();
    assert_eq!(received.len(), PARCELS, "each of them once");
    assert_eq!(dead_letters(&host, 0), Vec::<Value>::new());
}

#[test]
fn a_host_without_nats_has_no_dead_letters() {
    let site = Site::new("");
    let host = site.start();
    host.get("/admin/dead-letters").problem(404, "no-messaging");
}
