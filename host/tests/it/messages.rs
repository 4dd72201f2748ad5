//! NATS messages that become commands: each takes effect once, or becomes a dead letter until an operator
//! retries or discards it. And events that a service publishes on subjects of its own.

use std::time::{Duration, Instant};
use std::{fs, thread};

use async_nats::jetstream::stream;
use kontor::model::Digest;
use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::deploy::{self, fixture};
use crate::common::http::Client;
use crate::common::nats::{header, publish, publish_as, read, with};
use crate::common::{Host, Site, ended, kontor};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns a site with the fixture `parcels`, connected to NATS.
fn site(server: &NatsServer) -> (Site, TempDir) {
    deploy::site(&[("parcels", fixture("parcels"))], &format!("[nats]\nurl = '{}'\n", server.url()))
}

/// Returns the message that a parcel was delivered.
fn delivered<'m>(id: &'m str, parcel: &str) -> (&'static str, &'m str, Value) {
    ("carrier.delivered", id, json!({"parcel": parcel}))
}

/// Waits for the first `count` events of this name.
fn events(host: &Client, name: &str, count: usize) -> Vec<Value> {
    host.follow(0).filter(|event| event["name"] == name).take(count).collect()
}

/// Waits until there are `count` dead letters. Returns them.
#[track_caller]
fn dead_letters(host: &Client, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let page = host.get("/admin/dead-letters?limit=1000").ok();
        let letters = page["items"].as_array().unwrap();
        if letters.len() >= count {
            return letters.clone();
        }
        assert!(
            Instant::now() < deadline,
            "only {} dead letters of {count}: {}",
            letters.len(),
            host.get("/readyz").text
        );
        thread::yield_now();
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
    assert_eq!((&delivered["stream"], &delivered["actor"]), (&json!("parcel/A.1"), &json!("anonymous")));
    assert_eq!(delivered["via"], "message:carrier.delivered");
    assert_eq!(host.get("/parcels/A.1").ok(), json!({"id": "A.1", "grams": 700, "delivered": true}));
    // One event on two subjects is two messages.
    let published = read(&server.url(), "kontor-publications", |messages| messages.len() == 2);
    for (message, subject) in published.iter().zip(["shop.parcels.A%2E1.delivered", "crm.parcels.A%2E1"]) {
        assert_eq!(&*message.subject, subject);
        assert_eq!(header(message, "ce-id"), delivered["id"].as_str().unwrap());
        assert_eq!(header(message, "Nats-Msg-Id"), format!("parcel/A.1/2/{}", subject.replace('%', "%25")));
    }
}

#[test]
fn an_event_that_is_too_large_for_a_stream_does_not_stop_the_others() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server);
    with(&server.url(), async |jetstream| {
        for (name, subject, max_message_size) in
            [("kontor-events", "kontor.events.>", 8_192), ("crm", "crm.>", 4_096)]
        {
            let (name, subjects) = (name.to_owned(), vec![subject.to_owned()]);
            let config = stream::Config { name, subjects, max_message_size, ..stream::Config::default() };
            jetstream.create_stream(config).await.unwrap();
        }
    });
    let host = site.start();
    let large = json!({"parcel": "A", "note": "x".repeat(5_000)});
    let received = |id| ("carrier.A.received", id, json!({"grams": 7}));
    publish(&server.url(), &[received("m1"), ("carrier.delivered", "m2", large)]);
    publish(&server.url(), &[("carrier.B.received", "m3", json!({"grams": 7}))]);
    events(&host, "parcel-received", 2);
    events(&host, "parcel-delivered", 1);
    let last = host.events(0).last().unwrap()["position"].as_u64().unwrap();
    for (stream, count) in [("kontor-events", last as usize), ("crm", 1)] {
        let messages = read(&server.url(), stream, |messages| messages.len() == count);
        let large =
            messages.iter().find(|message| message.subject.ends_with(".A") && message.payload.is_empty());
        assert!(header(large.unwrap(), "ce-dataref").starts_with("/streams/parcel/A?"), "{stream}");
    }
    assert_eq!(host.get("/readyz").ok(), json!({"status": "ready"}));
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

/// Starts a host with `[auth]` and this section. Returns it with a client for its operator.
fn start(site: &Site, server: &NatsServer, auth: &str) -> (Host, Client) {
    site.configure(&format!("[nats]\nurl = '{}'\n[auth]\n{auth}", server.url()));
    let host = site.start();
    let operator = host.with_token(&fs::read_to_string(site.data().join("operator.token")).unwrap());
    (host, operator)
}

#[test]
fn the_command_of_a_message_has_the_caller_of_its_token_or_else_of_its_account() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let (host, operator) = start(&site, &server, "");
    let made = operator.post("/admin/tokens", &[], &json!({"subject": "ann", "roles": []})).ok();
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let parcel = |subject, id| (subject, id, json!({"grams": 1}));
    publish_as(&server.url(), None, &[parcel("carrier.A.received", "m1")]);
    publish_as(&server.url(), Some(&bearer), &[parcel("carrier.B.received", "m2")]);
    let received = events(&operator, "parcel-received", 2);
    assert!(host.stop().success());
    let (_host, operator) = start(&site, &server, "nats_roles = ['clerk']\n");
    publish(&server.url(), &[parcel("carrier.C.received", "m3")]);
    let received = [received, vec![events(&operator, "parcel-received", 3).pop().unwrap()]].concat();
    let mut seen: Vec<_> = received.iter().map(|event| json!([event["stream"], event["actor"]])).collect();
    seen.sort_by_key(ToString::to_string);
    let expected = [["parcel/A", "anonymous"], ["parcel/B", "ann"], ["parcel/C", "nats"]];
    assert_eq!(json!(seen), json!(expected));
    assert!(received.iter().all(|event| event["via"] == "message:carrier.*.received"), "{received:?}");
}

#[test]
fn a_dead_letter_keeps_the_caller_of_its_message_and_the_audit_has_who_sent_it_again() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let (_host, operator) = start(&site, &server, "");
    let made = operator.post("/admin/tokens", &[], &json!({"subject": "ann", "roles": ["clerk"]})).ok();
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    publish_as(&server.url(), Some(&bearer), &[delivered("m1", "A")]);
    publish_as(&server.url(), Some("Bearer kontor_0000000000000000_x"), &[delivered("m2", "B")]);
    let mut letters = dead_letters(&operator, 2);
    letters.sort_by_key(|letter| letter["message_id"].as_str().unwrap().to_owned());
    let shown: Vec<_> =
        letters.iter().map(|letter| (&letter["problem"]["code"], &letter["caller"])).collect();
    assert_eq!(
        json!(shown),
        json!([["not-found", {"subject": "ann", "roles": ["clerk"]}], ["invalid-token", null]])
    );
    let token = made["id"].as_str().unwrap();
    operator.send("DELETE", &format!("/admin/tokens/{token}"), &[], "").ok();
    for parcel in ["A", "B"] {
        operator.post(&format!("/parcels/{parcel}/receive"), &[], &json!({"grams": 1})).ok();
    }
    let redriven = operator.post("/admin/dead-letters/redrive", &[], &json!({"service": "parcels"})).ok();
    assert_eq!((&redriven["done"], &redriven["failed"][0]["message_id"]), (&json!(1), &json!("m2")));
    let delivered = &events(&operator, "parcel-delivered", 1)[0];
    assert_eq!(
        (&delivered["stream"], &delivered["actor"], &delivered["via"]),
        (&json!("parcel/A"), &json!("ann"), &json!("message:carrier.delivered"))
    );
    let acts = operator.get("/admin/audit").ok();
    let last = acts["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["act"], &last["by"], &last["failure"]),
        (&json!("redrive-dead-letters"), &json!("operator"), &json!("1 of 2 dead letters failed again"))
    );
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
fn a_message_of_the_largest_size_is_a_dead_letter_at_its_first_delivery() {
    const BYTES: usize = (1 << 20) - 100;
    let server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let host = site.start();
    let large = "x".repeat(BYTES);
    publish(&server.url(), &[("carrier.delivered", "m1", json!(large)), delivered("m2", "A")]);
    let letters = dead_letters(&host, 2);
    let letter = letters.iter().find(|letter| letter["message_id"] == "m1").unwrap();
    assert_eq!((&letter["problem"]["code"], &letter["deliveries"]), (&json!("invalid-json"), &json!(1)));
    let digest = Digest::of(large.as_bytes()).to_string();
    assert_eq!(letter["cut"], json!({"bytes": BYTES, "sha256": digest}));
    assert!(large.starts_with(letter["payload"].as_str().unwrap()), "{letter}");
    // A part of a message cannot be sent again.
    let redriven = host.post("/admin/dead-letters/redrive", &[], &json!({"id": letter["id"]})).ok();
    assert_eq!(redriven["failed"][0]["problem"]["code"], "payload-too-large");
}

#[test]
fn all_dead_letters_are_redriven_though_a_page_of_them_fails_again() {
    // One more than a page.
    const HOPELESS: usize = 1_001;
    let server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let host = site.start();
    let hopeless = |id: &str| ("carrier.delivered", id.to_owned(), json!({"parcel": 7}));
    let ids: Vec<_> = (0..HOPELESS).map(|number| format!("h{number}")).collect();
    let messages: Vec<_> = ids.iter().map(|id| hopeless(id)).collect();
    let messages: Vec<_> =
        messages.iter().map(|(subject, id, body)| (*subject, &**id, body.clone())).collect();
    publish(&server.url(), &messages);
    dead_letters(&host, 1_000);
    publish(&server.url(), &[delivered("m1", "A")]);
    while host.metric("kontor_nats_dead_letters_total{service=\"parcels\"}") < HOPELESS as f64 + 1.0 {}
    host.post("/parcels/A/receive", &[], &json!({"grams": 1})).ok();
    let ran = |line: &[&str]| {
        ended(&mut kontor(&[&["dead-letters"], line, &["--all", "--host", host.url()]].concat())).stdout
    };
    let printed = ran(&["redrive"]);
    assert!(printed.starts_with("1 dead letter processed\n1001 dead letters failed again:\n"), "{printed}");
    assert_eq!(host.get("/parcels/A").ok()["delivered"], true);
    assert_eq!(ran(&["discard", "--reason", "no parcel"]), "1001 dead letters discarded\n");
    assert_eq!(dead_letters(&host, 0), Vec::<Value>::new());
    let last = host.get(&format!("/admin/dead-letters?after={}", i64::MAX)).ok();
    assert_eq!(last, json!({"items": [], "next": null}));
}

#[test]
fn what_was_redriven_is_reported_though_a_dead_letter_cannot_be_removed() {
    let denied = "permissions: { publish: { deny: \"$JS.API.STREAM.MSG.DELETE.>\" } }";
    let users = format!("[ {{ user: host, password: p, {denied} }}, {{ user: test, password: p }} ]");
    let server = NatsServer::start_with(&format!("authorization {{ users: {users} }}\nno_auth_user: test\n"));
    let nats = format!("[nats]\nurl = '{}'\n", server.url().replace("nats://", "nats://host:p@"));
    let (site, _plugins) = deploy::site(&[("parcels", fixture("parcels"))], &nats);
    let host = site.start();
    publish(&server.url(), &[delivered("m1", "A"), delivered("m2", "B")]);
    dead_letters(&host, 2);
    for parcel in ["A", "B"] {
        host.post(&format!("/parcels/{parcel}/receive"), &[], &json!({"grams": 1})).ok();
    }
    let redriven = host.post("/admin/dead-letters/redrive", &[], &json!({})).ok();
    assert_eq!((&redriven["done"], &redriven["failed"]), (&json!(0), &json!([])));
    let stopped = redriven["stopped"].as_str().unwrap();
    assert!(stopped.starts_with("The dead letter 1 cannot be removed: "), "{stopped}");
    // The next attempt begins there.
    assert_eq!(redriven["next"], 0);
    assert_eq!(events(&host, "parcel-delivered", 1).len(), 1);
    assert_eq!(dead_letters(&host, 2).len(), 2);
    let discard = json!({"reason": "no parcel"});
    let discarded = host.post("/admin/dead-letters/discard", &[], &discard).ok();
    assert_eq!((&discarded["discarded"], discarded["stopped"].is_string()), (&json!(0), true));
    let acts = host.get("/admin/audit").ok();
    assert_eq!(acts["items"].as_array().unwrap().last().unwrap()["failure"], discarded["stopped"]);
}

#[test]
fn a_host_without_nats_has_no_dead_letters() {
    let site = Site::new("");
    let host = site.start();
    host.get("/admin/dead-letters").problem(404, "no-messaging");
}
