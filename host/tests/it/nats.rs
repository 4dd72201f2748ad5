//! A host as NATS clients see it: commands and queries as a NATS service, events as CloudEvents; and both
//! when a server or the host goes away in the middle.

use std::thread;

use async_nats::jetstream::Message;
use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};

use crate::common::deploy::{plugin, rebuilt};
use crate::common::nats::{configured, position, published, python, run, site};
use crate::common::shop::{SAGA_END, configuration, new_key, order};
use crate::common::{Host, Site};

/// Returns a request over NATS.
fn request(subject: &str, headers: &Value, body: &Value) -> Value {
    json!({"subject": format!("kontor.{subject}"), "headers": headers, "body": body})
}

/// Checks that the stream of events equals the log: every event, once, in order.
#[track_caller]
fn assert_published(host: &Host, server: &NatsServer) {
    let events = host.events(0);
    let log: Vec<_> = events.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    let stream: Vec<_> = published(&server.url(), *log.last().unwrap()).iter().map(position).collect();
    assert_eq!(stream, log);
}

#[test]
fn commands_and_queries_are_a_service_of_nats() {
    let server = NatsServer::start();
    let site = site(&server.url());
    let host = site.start();
    let key = new_key();
    let tea = json!({"name": "Tea", "unit_price": 450, "quantity": 3});
    let wanted = order(&[("tea", 2)]).json();
    let keyed = json!({"Kontor-Id": "tea", "Nats-Msg-Id": "register-tea"});
    let replies = python(
        &server.url(),
        &["request"],
        &[
            request("inventory.cmd.product.register", &keyed, &tea),
            request("inventory.cmd.product.register", &keyed, &tea),
            request("inventory.cmd.product.register", &json!({"Kontor-Id": "tea"}), &tea),
            request(
                "inventory.cmd.product.add-stock",
                &json!({"Kontor-Id": "tea", "If-Match": "\"7\""}),
                &json!({"quantity": 1}),
            ),
            request(
                "inventory.cmd.product.add-stock",
                &json!({"Kontor-Id": "tea"}),
                &json!({"quantity": "one"}),
            ),
            request("inventory.cmd.product.reserve", &json!({"Kontor-Id": "tea"}), &json!({})),
            request("order.cmd.order.create", &json!({"Nats-Msg-Id": key, "Prefer": SAGA_END.1}), &wanted),
            request("order.query.order", &json!({}), &json!({"id": key})),
            request("order.query.order", &json!({}), &json!({"id": "nobody"})),
        ],
    );
    let shown: Vec<_> = replies
        .iter()
        .map(|reply| (&reply["headers"]["Nats-Service-Error-Code"], &reply["body"]["code"]))
        .collect();
    let expected = json!([
        [null, null],
        [null, null],
        ["409", "already-exists"],
        ["412", "version-mismatch"],
        ["422", "invalid-payload"],
        ["404", "not-deployed"],
        [null, null],
        [null, null],
        ["404", "not-found"],
    ]);
    assert_eq!(json!(shown), expected, "{replies:#?}");
    assert_eq!(replies[0]["body"], replies[1]["body"], "a command sent again is answered as before");
    assert_eq!(replies[0]["headers"]["Kontor-Position"], replies[0]["body"]["position"].to_string());
    let placed = &replies[6]["body"];
    assert_eq!(
        (&placed["id"], &placed["saga"]["state"], &placed["state"]["status"]),
        (&json!(key), &json!("completed"), &json!("confirmed"))
    );
    assert_eq!(replies[7]["body"], placed["state"]);
    assert_eq!(host.stock("tea"), (1, 2));
}

#[test]
fn tools_of_nats_find_the_service_and_what_it_serves() {
    let server = NatsServer::start();
    let site = site(&server.url());
    let host = site.start();
    host.register("tea", 450, 3);
    let query = request("inventory.query.product", &json!({}), &json!({"id": "tea"}));
    python(&server.url(), &["request"], &[query.clone(), query]);
    let found = python(&server.url(), &["services"], &[]);
    let kinds: Vec<_> = found.iter().map(|answer| answer["body"]["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ping", "info", "stats"].map(|verb| format!("io.nats.micro.v1.{verb}_response")));
    for answer in &found {
        assert_eq!(answer["body"]["name"], "kontor");
        assert_eq!(answer["body"]["version"], env!("CARGO_PKG_VERSION"));
    }
    let endpoint = |answer: &Value| {
        let endpoints = answer["body"]["endpoints"].as_array().unwrap();
        let named = |endpoint: &&Value| endpoint["name"] == "inventory-query-product";
        endpoints.iter().find(named).cloned().unwrap()
    };
    assert_eq!(endpoint(&found[1])["subject"], "kontor.inventory.query.product");
    let counts = |answer: &Value| {
        let stats = endpoint(answer);
        json!([stats["num_requests"], stats["num_errors"], stats["last_error"]])
    };
    assert_eq!(counts(&found[2]), json!([2, 0, ""]));
    // The counts are those since the start of the host, whatever is deployed.
    let unknown = request("inventory.query.product", &json!({}), &json!({"id": "pot"}));
    python(&server.url(), &["request"], &[unknown]);
    host.deploy(&rebuilt(plugin("inventory")), "").ok();
    let later = python(&server.url(), &["services"], &[]);
    assert_eq!(counts(&later[2]), json!([3, 1, "404:not-found"]));
    assert_eq!(later[2]["body"]["started"], found[2]["body"]["started"]);
}

#[test]
fn what_is_served_is_what_is_deployed() {
    let server = NatsServer::start();
    let site = site(&server.url());
    let host = site.start();
    let view = request("report.query.order", &json!({}), &json!({"id": "nobody"}));
    let code = |view: &Value| {
        python(&server.url(), &["request"], std::slice::from_ref(view))[0]["body"]["code"].clone()
    };
    let served = || python(&server.url(), &["services"], &[])[1]["body"]["endpoints"].to_string();
    let subjects = "kontor.report.";
    assert!(served().contains(subjects));
    assert_eq!(code(&view), "not-found");
    host.undeploy("report", "").ok();
    assert!(!served().contains(subjects));
    assert_eq!(code(&view), "not-deployed");
}

#[test]
fn every_event_is_a_cloud_event_in_the_stream() {
    let server = NatsServer::start();
    let site = site(&server.url());
    let host = site.start();
    host.register("tea.green", 450, 3);
    let placed = host.place(&order(&[("tea.green", 2)])).ok();
    let events = host.events(0);
    let messages = python(&server.url(), &["events", &events.len().to_string()], &[]);
    // It is the same for all events of a log.
    let source = messages[0]["headers"]["ce-source"].as_str().unwrap();
    let source = source.split_once("/streams/").unwrap().0;
    assert!(source.starts_with("urn:kontor:"), "{source}");
    for (event, message) in events.iter().zip(&messages) {
        let headers = &message["headers"];
        let (kind, id) = event["stream"].as_str().unwrap().split_once('/').unwrap();
        let service = match kind {
            "product" => "inventory",
            "saga" | "deployment" => "kontor",
            service => service,
        };
        let name = event["name"].as_str().unwrap();
        assert_eq!(message["subject"], format!("kontor.events.{service}.{name}.{}", id.replace('.', "%2E")));
        assert_eq!(message["body"], event["payload"]);
        for (header, value) in [
            ("Nats-Msg-Id", json!(format!("{kind}/{id}/{}", event["version"]))),
            ("content-type", json!("application/json")),
            ("ce-specversion", json!("1.0")),
            ("ce-id", event["id"].clone()),
            ("ce-source", json!(format!("{source}/streams/{kind}/{id}"))),
            ("ce-datacontenttype", json!("application/json")),
            ("ce-type", json!(format!("{service}.{name}"))),
            ("ce-subject", json!(id)),
            ("ce-time", event["time"].clone()),
            ("ce-position", json!(event["position"].to_string())),
            ("ce-version", json!(event["version"].to_string())),
            ("ce-correlationid", event["correlation_id"].clone()),
            ("ce-causationid", event["causation_id"].clone()),
        ] {
            assert_eq!(headers[header], value, "{header} of {event}");
        }
    }
    let confirmed = format!("kontor.events.order.order-confirmed.{}", placed["id"].as_str().unwrap());
    assert_eq!(messages.iter().filter(|message| message["subject"] == confirmed).count(), 1);
}

#[test]
fn a_host_starts_without_nats_says_so_and_publishes_when_it_is_there() {
    let mut server = NatsServer::start();
    server.kill();
    let site = site(&server.url());
    let host = site.start();
    host.register("tea", 450, 3);
    let ready = host.get("/readyz").ok();
    let warning = ready["warnings"][0].as_str().unwrap();
    assert!(warning.contains(&server.url()) && warning.ends_with("commands come in by HTTP only"), "{ready}");
    assert!(host.get("/metrics").text.contains("\nkontor_nats_connected 0\n"));
    server.restart();
    assert_published(&host, &server);
    assert_eq!(host.get("/readyz").ok(), json!({"status": "ready"}));
    assert!(host.get("/metrics").text.contains("\nkontor_nats_connected 1\n"));
}

#[test]
fn nothing_is_lost_or_doubled_when_the_server_is_killed_under_load() {
    let mut server = NatsServer::start();
    let site = site(&server.url());
    let host = site.start();
    host.register("tea", 450, 100_000);
    thread::scope(|scope| {
        let orders = [(); 4].map(|()| {
            scope.spawn(|| {
                for _ in 0..25 {
                    host.place(&order(&[("tea", 1)])).ok();
                }
            })
        });
        for _ in 0..2 {
            let head = host.head();
            published(&server.url(), head + 50);
            server.kill();
            server.restart();
        }
        orders.into_iter().for_each(|order| order.join().unwrap());
    });
    assert_published(&host, &server);
}

#[test]
fn a_host_that_was_killed_goes_on_where_the_stream_is() {
    let server = NatsServer::start();
    let site = site(&server.url());
    let mut host = site.start();
    host.register("tea", 450, 100);
    host.place(&order(&[("tea", 1)])).ok();
    host.kill();
    let host = site.start();
    host.place(&order(&[("tea", 1)])).ok();
    assert_published(&host, &server);
}

#[test]
fn events_that_have_piled_up_are_published_to_several_servers_in_batches() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 450, 1);
    (0..300).for_each(|_| {
        host.post("/products/tea/add-stock", &[], &json!({"quantity": 1})).ok();
    });
    host.stop();
    let servers = NatsServer::cluster();
    let urls = servers.each_ref().map(NatsServer::url).join(",");
    site.configure(&format!("{}replicas = 3\n", configured(&urls)));
    let mut host = site.start();
    assert_published(&host, &servers[0]);
    let batched = |message: &&Message| message.headers.as_ref().unwrap().get("Nats-Batch-Id").is_some();
    let messages = published(&servers[0].url(), host.head());
    assert!(messages.iter().filter(batched).count() > 100);

    host.kill();
    let host = site.start();
    host.place(&order(&[("tea", 2)])).ok();
    assert_published(&host, &servers[1]);
}

#[test]
fn the_stream_of_another_log_is_left_alone() {
    let server = NatsServer::start();
    let [here, there] = [site(&server.url()), site(&server.url())];
    let first = here.start();
    first.register("tea", 450, 100);
    let head = first.head();
    let before = published(&server.url(), head).len();
    first.stop();
    let second = there.start();
    second.register("coffee", 450, 100);
    second.await_warning("events of another log");
    assert_eq!(published(&server.url(), head).len(), before);
}

#[test]
fn a_flood_of_requests_is_asked_to_come_back_later() {
    let server = NatsServer::start();
    let site = Site::new(&format!("{}[limits]\nnats_requests = 1\n", configured(&server.url())));
    let host = site.start();
    host.register("tea", 450, 100);
    let answers = run(async {
        let client = async_nats::connect(server.url()).await.unwrap();
        let query = || client.request("kontor.inventory.query.product", r#"{"id":"tea"}"#.into());
        futures::future::join_all((0..200).map(|_| query())).await
    });
    let codes: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.unwrap().headers.unwrap().get("Nats-Service-Error").map(ToString::to_string))
        .collect();
    assert!(codes.contains(&None), "some are answered");
    assert!(codes.contains(&Some("busy".to_owned())), "and some are not");
    assert!(codes.iter().flatten().all(|code| code == "busy"), "{codes:?}");
}
