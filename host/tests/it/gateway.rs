//! The shop with payments through a gateway: a separate server, called over HTTP.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kontor_testkit::shop::laws;
use serde_json::{Value, json};

use crate::common::gateway::{Gateway, keys};
use crate::common::http::{Client, Reply};
use crate::common::nodes::when;
use crate::common::shop::{SAGA_END, UNDELIVERABLE, Wanted, configuration, names, new_key, order};
use crate::common::{Host, Site, built, ended, kontor};

/// The secret that the gateway expects and nobody else may see.
const SECRET: &str = "Bearer b1c0ffee-not-for-your-eyes";
/// The environment variable from which the host reads the secret.
const VARIABLE: &str = "GATEWAY_AUTHORIZATION";
/// The log filter that shows everything about requests. (The compiler would log for minutes.)
const EVERYTHING: &str =
    "info,kontor=trace,component=trace,hyper=trace,hyper_util=trace,wasmtime_wasi_http=trace";

/// Returns the shop's configuration, with the payment service's section first.
fn with_gateway(gateway: &Gateway) -> String {
    let url = gateway.url();
    let services = configuration().replacen(
        "[services.payment]",
        &format!("[services.payment]\ngateway-url = '{url}'"),
        1,
    );
    format!(
        "{services}\n[[grants.payment.http]]\norigin = '{url}'\nmethods = ['POST', 'PUT', 'DELETE']\n\
         private = true\n\
         headers.authorization = {{ env = '{VARIABLE}' }}\n"
    )
}

fn open_shop(gateway: &Gateway) -> (Site, Host) {
    let site = Site::new(&with_gateway(gateway)).with_variable(VARIABLE, SECRET);
    let host = site.start();
    host.register("apple", 300, 10);
    (site, host)
}

fn two_apples() -> Wanted {
    order(&[("apple", 2)])
}

/// Places an order with this id and waits for the end of its saga.
fn place(host: &Client, id: &str, wanted: &Wanted) -> Reply {
    let reply = host.post("/orders", &[SAGA_END, ("idempotency-key", id)], &wanted.json());
    assert_eq!(reply.ok()["id"], id);
    reply
}

/// Returns the methods of the requests that arrived for an order.
fn methods(gateway: &Gateway, id: &str) -> Vec<String> {
    gateway.requests(id).into_iter().map(|request| request.method).collect()
}

#[test]
fn an_order_is_paid_once_under_the_id_of_its_command() {
    let gateway = Gateway::open();
    let (_site, host) = open_shop(&gateway);
    let id = new_key();
    assert_eq!(place(&host, &id, &two_apples()).json()["state"]["status"], "confirmed");

    let [request] = &gateway.requests(&id)[..] else { panic!("{:?}", gateway.requests(&id)) };
    let paid = &host.history(&format!("payment/{id}"))[0];
    assert_eq!((&*request.method, &*request.path), ("POST", "/authorizations"));
    let body = json!({"order_id": id, "amount": 600, "methods": [{"method": "card", "amount": 600}]});
    assert_eq!(request.body, body);
    assert_eq!(request.key, paid["command_id"].as_str().unwrap());
    assert_eq!(request.headers["x-request-id"], paid["correlation_id"].as_str().unwrap());
    assert_eq!(request.headers["authorization"], SECRET);
    assert_eq!(gateway.authorized(&id), Some(600));

    // The repeated command is answered from the record.
    place(&host, &id, &two_apples());
    assert_eq!(methods(&gateway, &id), ["POST"]);
    laws::check(&host);
}

#[test]
fn what_the_gateway_refuses_is_rejected_and_what_it_took_is_given_back() {
    let gateway = Gateway::open();
    let (_site, host) = open_shop(&gateway);
    let declined = new_key();
    gateway.answers("POST", &declined, &[402]);
    // The order, the reason why it is cancelled, and the requests to the gateway.
    let table = [
        (declined, two_apples(), "card-declined", &["POST"][..]),
        (new_key(), two_apples().sent_to(UNDELIVERABLE), "undeliverable", &["POST", "DELETE"]),
    ];
    for (id, wanted, reason, requests) in table {
        let state = &place(&host, &id, &wanted).json()["state"];
        assert_eq!((&state["status"], &state["reason"]["code"]), (&json!("cancelled"), &json!(reason)));
        assert_eq!(methods(&gateway, &id), requests);
        assert_eq!(keys(&gateway.requests(&id)).len(), requests.len(), "each command has its own key");
        assert_eq!(gateway.authorized(&id), None);
    }
    assert_eq!(host.stock("apple"), (10, 0));
    laws::check(&host);
}

#[test]
fn what_is_neither_yes_nor_no_is_tried_again_under_the_same_key() {
    let gateway = Gateway::open();
    let (_site, host) = open_shop(&gateway);
    let id = new_key();
    // Busy, gone without an answer, and an unknown status.
    gateway.answers("POST", &id, &[503, 0, 500]);
    assert_eq!(place(&host, &id, &two_apples()).json()["state"]["status"], "confirmed");
    let requests = gateway.requests(&id);
    assert_eq!(requests.iter().map(|request| request.status).collect::<Vec<_>>(), [503, 0, 500, 200]);
    assert_eq!(keys(&requests).len(), 1);
    assert_eq!(names(&host.history(&format!("payment/{id}"))), ["payment-authorized"]);
    laws::check(&host);
}

#[test]
fn an_order_that_meets_no_gateway_ends_by_itself_when_the_gateway_is_back() {
    let mut gateway = Gateway::open();
    let (_site, host) = open_shop(&gateway);
    let [meanwhile, after] = [(); 2].map(|()| new_key());
    gateway.go_down();
    let placed = host.post("/orders", &[("idempotency-key", &meanwhile)], &two_apples().json());
    let saga = placed.ok()["saga"]["id"].as_str().unwrap().to_owned();
    // The gateway may have received the payment, so it must be asked to cancel it before the order is
    // cancelled.
    let unwinding = |event: &Value| event["stream"] == format!("saga/{saga}") && event["name"] == "unwinding";
    assert!(host.follow(0).any(|event| unwinding(&event)));
    gateway.come_back();
    let ended = host.get_with(&format!("/sagas/{saga}"), &[SAGA_END]).ok();
    assert_eq!((&ended["state"], &ended["reason"]["code"]), (&json!("compensated"), &json!("step-failed")));
    assert_eq!(methods(&gateway, &meanwhile), ["DELETE"]);
    assert_eq!(place(&host, &after, &two_apples()).json()["state"]["status"], "confirmed");
    assert_eq!([meanwhile, after].map(|id| gateway.authorized(&id)), [None, Some(600)]);
    laws::check(&host);
}

#[test]
fn a_refund_that_fails_parks_the_saga_and_is_made_when_an_operator_retries_it() {
    let mut gateway = Gateway::open();
    let few = "{ attempts = 3, first_wait_ms = 1, longest_wait_ms = 10 }";
    let site = Site::new(&format!("{}\n[retries]\nundo = {few}\n", with_gateway(&gateway)));
    let site = site.with_variable(VARIABLE, SECRET);
    let host = site.start();
    host.register("apple", 300, 10);
    let id = new_key();
    assert_eq!(place(&host, &id, &two_apples()).json()["state"]["status"], "confirmed");
    gateway.answers("DELETE", &id, &[409]);
    let refused = host.send("DELETE", &format!("/orders/{id}"), &[SAGA_END], "").ok();
    assert_eq!(
        (&refused["saga"]["state"], &refused["state"]["status"]),
        (&json!("compensated"), &json!("confirmed"))
    );
    assert_eq!(refused["state"]["reason"]["code"], "refund-refused");

    // The delivery fails for good after the payment succeeded, and the gateway goes down in between.
    let lost = new_key();
    gateway.answers("DELETE", &lost, &[500, 500, 500]);
    let placed = place(&host, &lost, &two_apples().sent_to(UNDELIVERABLE)).json();
    assert_eq!(placed["saga"]["state"], "parked");
    assert_eq!(placed["state"]["status"], "cancelled", "the other undos have run");
    assert_eq!(host.stock("apple"), (8, 2));
    assert_eq!(gateway.authorized(&lost), Some(600));
    assert!(host.get("/metrics").text.contains("kontor_sagas{state=\"parked\"} 1\n"));

    let saga = placed["saga"]["id"].as_str().unwrap();
    gateway.go_down();
    let retry = || ended(kontor(&["saga", "retry", saga, "--host"]).arg(host.url()));
    let still = |state: &str| host.get_with(&format!("/sagas/{saga}"), &[SAGA_END]).ok()["state"] == *state;
    assert!(retry().status.success());
    assert!(still("parked"));
    gateway.come_back();
    assert!(retry().status.success());
    assert!(still("compensated"));
    assert_eq!(gateway.authorized(&lost), None);
    laws::check(&host);
}

#[test]
fn a_secret_is_seen_by_the_gateway_and_by_nobody_else() {
    let gateway = Gateway::open();
    let site = Site::new(&with_gateway(&gateway))
        .with_variable(VARIABLE, SECRET)
        .with_variable("RUST_LOG", EVERYTHING);
    let host = site.start();
    host.register("apple", 300, 10);
    let (good, faulty) = (new_key(), new_key());
    gateway.answers("POST", &faulty, &[0, 500]);
    place(&host, &good, &two_apples());
    place(&host, &faulty, &two_apples());
    assert_eq!(gateway.requests(&faulty)[0].headers["authorization"], SECRET);

    let paths = ["/", "/metrics", "/openapi.json", "/admin/plugins", "/events"];
    let shown = paths.map(|path| host.get_with(path, &[("accept", "application/json")]).text);
    assert!(shown[4].contains("payment-authorized"), "the events are shown");
    let log = host.log();
    assert!(log.contains(&gateway.url()), "the log says what went wrong with the gateway");
    assert!(host.stop().success());
    let secret = SECRET.strip_prefix("Bearer ").unwrap();
    for text in shown.iter().chain([&log]) {
        assert!(!text.contains(secret), "{text:.1000}");
    }
    check_files(&site.data(), secret.as_bytes());
}

/// Checks that no file in the folder contains the secret. (Linked directories hold compiled code only.)
fn check_files(folder: &Path, secret: &[u8]) {
    for entry in fs::read_dir(folder).unwrap() {
        let (entry, path) = entry.map(|entry| (entry.file_type().unwrap(), entry.path())).unwrap();
        if entry.is_dir() {
            check_files(&path, secret);
        } else if entry.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
}

#[test]
fn a_host_starts_only_with_what_its_services_need_of_the_operator() {
    let gateway = Gateway::open();
    let (url, complete) = (gateway.url(), with_gateway(&gateway));
    let (no_grant, _) = complete.split_once("[[grants").unwrap();
    let no_url = complete.replace(&format!("gateway-url = '{url}'"), "gateway-url = 'the bank'");
    let twice = format!("{complete}[[grants.payment.http]]\norigin = '{url}'\nmethods = ['GET']\n");
    // The configuration, the value of the secret's variable if it is set, and the host's error.
    let table: [(&str, Option<&str>, &[&str]); 5] = [
        (no_grant, Some(SECRET), &["payment.wasm", &url, "[[grants.payment.http]]", "kontor.toml"]),
        (&complete, None, &["authorization", &url, "GATEWAY_AUTHORIZATION is not set"]),
        (&complete, Some("two\nlines"), &["authorization", &url, "cannot stand in a header"]),
        (&no_url, Some(SECRET), &["gateway-url of payment is no URL"]),
        (&twice, Some(SECRET), &[&url, "twice"]),
    ];
    for (configuration, secret, parts) in table {
        let site = Site::new(configuration);
        let site = match secret {
            Some(secret) => site.with_variable(VARIABLE, secret),
            None => site,
        };
        let ended = site.fail_to_start(&built("plugins"));
        assert!(!ended.status.success());
        for part in parts {
            assert!(ended.stderr.contains(part), "{part:?} is missing in: {}", ended.stderr);
        }
        if let Some(secret) = secret {
            assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
        }
    }
}

#[test]
fn a_request_that_is_not_granted_is_logged_with_its_remedy() {
    let gateway = Gateway::open();
    let post_only = with_gateway(&gateway).replace("['POST', 'PUT', 'DELETE']", "['POST']");
    let site = Site::new(&format!(
        "{post_only}\n[retries]\nundo = {{ attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }}\n"
    ));
    let site = site.with_variable(VARIABLE, SECRET);
    let host = site.start();
    host.register("apple", 300, 10);
    let placed = place(&host, &new_key(), &two_apples().sent_to(UNDELIVERABLE)).json();
    assert_eq!(placed["saga"]["state"], "parked", "{placed}");
    let sentence = format!(
        "payment may not send DELETE to {}: add \"DELETE\" to the methods of that origin under \
         [[grants.payment.http]] in kontor.toml",
        gateway.url()
    );
    let log = host.log();
    assert!(log.contains(&sentence), "{log}");
}

#[test]
fn the_test_of_the_tests_gateway() {
    let mut gateway = Gateway::open();
    let client = Client::new(&gateway.url());
    let send = |method, path, key: &str, body: &Value| {
        client.try_send(method, path, &[("idempotency-key", key)], body.to_string()).map(|reply| reply.status)
    };
    let body = json!({"order_id": "o1", "amount": 5});
    gateway.answers("POST", "o1", &[402]);
    let table = [("k1", 402), ("k1", 402), ("k2", 200), ("k2", 200), ("k3", 409)];
    for (key, status) in table {
        assert_eq!(send("POST", "/authorizations", key, &body).unwrap(), status, "{key}");
    }
    gateway.go_down();
    send("DELETE", "/authorizations/o1", "k4", &json!({})).unwrap_err();
    gateway.come_back();
    assert_eq!(send("DELETE", "/authorizations/o1", "k4", &json!({})).unwrap(), 200);
    assert_eq!(gateway.authorized("o1"), None);
}

#[test]
fn a_gateway_that_hangs_stalls_no_other_service() {
    let gateway = Gateway::open();
    gateway.hold();
    // Four calls of one service, of which two run at a time.
    let limits = "\n[limits]\ninstances = 4\nhttp_time_ms = 9000\n";
    let site = Site::new(&(with_gateway(&gateway) + limits)).with_variable(VARIABLE, SECRET);
    let host = site.start();
    host.register("apple", 300, 1_000);
    for _ in 0..20 {
        host.post("/orders", &[("prefer", "wait=0")], &two_apples().json()).ok();
    }
    when(|| json!(gateway.waiting()), |waiting| waiting.as_u64() >= Some(4));
    let begun = Instant::now();
    for _ in 0..20 {
        host.post("/products/apple/add-stock", &[], &json!({"quantity": 1})).ok();
        host.get("/products?limit=1").ok();
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "the gateway holds its answers for 9 s");
    gateway.release();
    let settled = || {
        let orders = host.get("/reports/orders?status=confirmed&limit=20").ok();
        json!(orders["items"].as_array().unwrap().len())
    };
    when(settled, |confirmed| *confirmed == 20);
}
