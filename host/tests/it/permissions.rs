//! Components use what belongs to others only if they ask for it and an operator grants it, and nothing
//! reaches a component that does not follow its schema.

use std::sync::Arc;

use kontor::deployed::Store;
use kontor::log::{Append, EmbeddedLog, EventLog as _};
use kontor::model::{Caller, CommandId, Digest, Json, Meta, NewEvent, StreamId, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::deploy::{self, digest_of, fixture, gate, granting, next_inventory, plugin};
use crate::common::http::Client;
use crate::common::shop::order;
use crate::common::{Host, Site};

/// Everything that the fixture `hostile` asks for.
const ASKED: [&str; 4] =
    ["command:payment.cancel", "command:product.reserve", "event:order.order-created", "service:inventory"];

/// Returns the shop without `hostile`, which has this mission once it is deployed.
fn shop(mission: &str, more: &str) -> (Site, TempDir) {
    let services = ["order", "payment", "delivery", "inventory"];
    let services = services.map(|service| (service, plugin(service)));
    deploy::site(&services, &configuration(mission, more))
}

fn configuration(mission: &str, more: &str) -> String {
    format!("[services.hostile]\nmission = '{mission}'\n{more}")
}

/// Starts a shop in which `hostile` runs with all that it asks for, and with tea in stock.
fn raided(mission: &str) -> (Host, (Site, TempDir)) {
    let site = shop(mission, "");
    let host = site.0.start();
    host.register("tea", 250, 100);
    host.deploy(&fixture("hostile"), &granting(&ASKED)).ok();
    (host, site)
}

/// Places an order of tea, waits for its own saga, and returns the order.
fn placed(host: &Client) -> Value {
    let id = host.place(&order(&[("tea", 2)])).ok()["id"].as_str().unwrap().to_owned();
    host.get(&format!("/orders/{id}")).ok()
}

/// Waits until the saga of `hostile` has ended or parked, and returns its timeline.
fn raid(host: &Client) -> Value {
    let list = host.get("/admin/sagas?saga=raid").ok();
    let id = list["items"][0]["id"].as_str().expect("a saga").to_owned();
    host.get_with(&format!("/sagas/{id}"), &[("prefer", "wait=30")]).ok();
    host.get(&format!("/admin/sagas/{id}")).ok()
}

#[test]
fn a_service_that_asks_for_what_belongs_to_others_needs_a_grant_for_each() {
    let (site, _plugins) = shop("none", "");
    let host = site.start();
    for missing in ASKED {
        let others: Vec<_> = ASKED.into_iter().filter(|grant| *grant != missing).collect();
        let problem = host.deploy(&fixture("hostile"), &granting(&others)).problem(422, "gate-refused");
        let says = gate(&problem["report"], "permissions")["says"].as_str().unwrap();
        let expected = format!(
            "the component requests {missing}, which is not granted: deploy it with --grant {missing}, or \
             add that to [grants.hostile] in kontor.toml"
        );
        assert_eq!(says, expected);
    }
    host.deploy(&fixture("hostile"), &granting(&ASKED)).ok();
}

#[test]
fn everything_that_is_not_granted_is_named_at_once_with_the_flags_that_grant_it() {
    let (site, _plugins) = shop("none", "");
    let host = site.start();
    let problem = host.deploy(&fixture("hostile"), "").problem(422, "gate-refused");
    let gate = gate(&problem["report"], "permissions");
    let flags = ASKED.map(|asked| format!("--grant {asked}")).join(" ");
    let says = format!(
        "the component requests 4 permissions that are not granted: deploy it with {flags}, or add them to \
         [grants.hostile] in kontor.toml"
    );
    assert_eq!(gate["says"], says);
    let finding = |asked: &str| {
        format!("{asked}: deploy it with --grant {asked}, or add that to [grants.hostile] in kontor.toml")
    };
    assert_eq!(gate["findings"], json!(ASKED.map(finding)));
}

#[test]
fn a_command_that_the_manifest_does_not_ask_for_is_refused_at_the_call() {
    let (host, _site) = raided("sneak");
    let order = placed(&host);
    assert_eq!(order["status"], "confirmed");
    let raid = raid(&host);
    assert_eq!(raid["state"], "parked");
    let why = raid["why"].as_str().unwrap();
    assert!(why.contains("does not ask for the permission command:product.register"), "{why}");
    host.get("/products/poisoned").problem(404, "not-found");
}

#[test]
fn an_event_that_the_manifest_does_not_ask_for_is_not_waited_for() {
    let (host, _site) = raided("listen");
    placed(&host);
    let raid = raid(&host);
    let why = raid["why"].as_str().unwrap();
    assert_eq!(raid["state"], "parked", "{why}");
    assert!(why.contains("does not ask for the permission event:payment.payment-authorized"), "{why}");
}

#[test]
fn an_event_whose_grant_has_ended_reaches_neither_the_read_model_nor_a_saga() {
    let grants = "[grants.hostile]\ncommands = ['payment.cancel', 'product.reserve']\n\
                  services = ['inventory']\nevents = ['order.order-created']\n";
    let (site, _plugins) = shop("none", grants);
    let host = site.start();
    host.register("tea", 250, 100);
    host.deploy(&fixture("hostile"), "").ok();
    assert!(host.stop().success());

    site.configure(&configuration("rob", &grants.replace("'order.order-created'", "")));
    let host = site.start();
    let order = placed(&host);
    let raid = raid(&host);
    let (why, ended) =
        (raid["why"].as_str().unwrap(), "the permission event:order.order-created is not granted");
    assert!(raid["state"] == "parked" && why.contains(ended), "{raid:#}");
    let payment = host.get(&format!("/payments/{}", order["id"].as_str().unwrap())).ok();
    assert_eq!((&order["status"], &payment["status"]), (&json!("confirmed"), &json!("authorized")));

    let position = host.head().to_string();
    let seen = host.get_with("/hostile/users", &[("kontor-position", &position), ("prefer", "wait=30")]);
    assert_eq!(seen.ok(), json!([]));
    let projection = host.get("/admin/projections/hostile").ok().to_string();
    assert!(projection.contains(ended), "{projection}");
}

#[test]
fn a_grant_that_is_taken_out_of_the_configuration_ends_with_the_next_start() {
    let grants = "[grants.hostile]\ncommands = ['payment.cancel', 'product.reserve']\n\
                  events = ['order.order-created']\nservices = ['inventory']\n";
    let (site, _plugins) = shop("overdo", grants);
    let host = site.start();
    host.register("tea", 250, 100);
    host.deploy(&fixture("hostile"), "").ok();
    host.get("/hostile/stock?limit=1").ok();
    assert!(host.stop().success());

    site.configure(&configuration(
        "rob",
        &grants.replace("'payment.cancel', ", "").replace("'inventory'", ""),
    ));
    let host = site.start();
    let order = placed(&host);
    let raid = raid(&host);
    assert_eq!(raid["state"], "parked");
    let why = raid["why"].as_str().unwrap();
    assert!(
        why.contains("the permission command:payment.cancel is not granted: add it to [grants.hostile]"),
        "{why}"
    );
    let payment = host.get(&format!("/payments/{}", order["id"].as_str().unwrap())).ok();
    assert_eq!((&order["status"], &payment["status"]), (&json!("confirmed"), &json!("authorized")));
    host.get("/hostile/stock?limit=1").problem(502, "component-broke-contract");
}

#[test]
fn a_saga_does_not_take_back_the_command_of_another_service_that_started_it() {
    let (host, _site) = raided("reject");
    let order = placed(&host);
    let raid = raid(&host);
    assert_eq!((&order["status"], &raid["state"]), (&json!("confirmed"), &json!("compensated")));
    let order = host.get(&format!("/orders/{}", order["id"].as_str().unwrap())).ok();
    assert_eq!(order["status"], "confirmed", "it is the order's own saga that may cancel it");
}

#[test]
fn a_step_with_a_payload_that_does_not_follow_its_schema_is_rejected() {
    let (host, _site) = raided("overdo");
    placed(&host);
    let raid = raid(&host);
    assert_eq!((&raid["state"], &raid["reason"]["code"]), (&json!("compensated"), &json!("invalid-payload")));
    let message = raid["reason"]["message"].as_str().unwrap();
    assert!(message.starts_with("It does not follow the schema of the command: /quantity "), "{message}");
    assert_eq!(host.stock("tea"), (98, 2), "only the order has reserved");
}

#[test]
fn a_question_whose_arguments_do_not_follow_their_schema_is_rejected_and_no_fault() {
    let (host, _site) = raided("none");
    for limit in ["0", "-1", "4294967295"] {
        let path = format!("/hostile/stock?limit={limit}");
        let problem = host.get(&path).problem(422, "invalid-arguments");
        assert!(problem["detail"].as_str().unwrap().contains("/limit"), "{problem}");
    }
    assert_eq!(host.get("/hostile/stock?limit=1").ok()["items"][0]["id"], "tea");
}

/// Returns a component as if it were built for the contract before this one.
fn of_earlier_contract(mut wasm: Vec<u8>) -> Vec<u8> {
    let (name, now, before) = (b"kontor:service/", b"@0.2.0", b"@0.1.0");
    let starts: Vec<_> = wasm.windows(name.len()).enumerate().filter(|(_, bytes)| bytes == name).collect();
    for start in starts.into_iter().map(|(start, _)| start).collect::<Vec<_>>() {
        let rest = &mut wasm[start + name.len()..];
        let end = rest.iter().position(|byte| !byte.is_ascii_lowercase() && *byte != b'-').unwrap();
        if rest[end..].starts_with(now) {
            rest[end..][..before.len()].copy_from_slice(before);
        }
    }
    wasm
}

#[test]
fn a_component_of_an_earlier_contract_is_refused_with_the_way_out() {
    let (site, _plugins) = deploy::inventory();
    let host = site.start();
    let earlier = of_earlier_contract(plugin("inventory"));
    let problem = host.deploy(&earlier, "").problem(422, "gate-refused");
    let says = gate(&problem["report"], "component")["says"].as_str().unwrap();
    let expected = "it is built for kontor:service@0.1.0, and this host runs kontor:service@0.2.0: build it \
                    again with the SDK of this version of Kontor, and deploy that";
    assert!(says.contains(expected), "{says}");
}

#[test]
fn a_log_whose_components_are_of_an_earlier_contract_is_opened_with_those_of_the_directory() {
    let (site, plugins) = deploy::inventory();
    let earlier = of_earlier_contract(plugin("inventory"));
    record_deployment(&site, "inventory", &earlier);
    let refused = site.fail_to_start(deploy::folder(&[]).path());
    assert!(refused.stderr.contains("it is built for kontor:service@0.1.0"), "{}", refused.stderr);
    assert!(!refused.status.success());
    let host = site.start();
    assert_eq!(host.digest("inventory"), digest_of(&plugin("inventory")));
    host.register("tea", 250, 1);
    drop(plugins);
}

#[test]
fn a_log_whose_component_takes_a_route_of_the_host_is_not_served() {
    let (site, _plugins) = deploy::site(&[], "");
    record_deployment(&site, "usurper", &next_inventory("usurper"));
    let refused = site.fail_to_start(deploy::folder(&[]).path());
    let expected = "usurper cannot have the route GET /admin/plugins: paths under /admin are the host's own";
    assert!(!refused.status.success() && refused.stderr.contains(expected), "{}", refused.stderr);
}

/// Writes a log in which a component was deployed, past the gates of today.
fn record_deployment(site: &Site, service: &str, wasm: &[u8]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    Store::open(&site.data()).unwrap().keep(wasm).unwrap();
    let release = json!({"service": service, "version": "0.1.0", "digest": Digest::of(wasm), "gates": []});
    let event =
        NewEvent { name: "deployed".into(), payload: Json::of(&json!({"services": [release]})).unwrap() };
    let stream = StreamId::parse("deployment/services").unwrap();
    let meta = Meta { command: "deployed".into(), ..Meta::of(CommandId::new(), &Caller::named("ada")) };
    let append =
        Append { events: vec![event], meta: Arc::new(meta), ..Append::nothing(stream, Version::START) };
    runtime.block_on(async {
        EmbeddedLog::open(&site.data()).unwrap().append(vec![append]).await.unwrap();
    });
}
