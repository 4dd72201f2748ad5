//! The caller that started a saga: all that the saga does is done for that caller, after a kill, by the act
//! of an operator, and on another host.

use std::collections::BTreeSet;
use std::fs;

use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};

use crate::common::deploy::{self, FOR_THANKS, fixture, granting, plugin};
use crate::common::http::Client;
use crate::common::nodes::{self, both_up, nodes_when, when};
use crate::common::shop::{SAGA_END, configuration, order};
use crate::common::{Site, ended, kontor};

/// One attempt for everything: a failure parks the saga at once.
const ONE_ATTEMPT: &str = "{ attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }";

/// Returns a client for the operator of a host with `[auth]`.
fn operator(site: &Site, host: &Client) -> Client {
    host.with_token(&fs::read_to_string(site.data().join("operator.token")).unwrap())
}

/// Returns the events with the correlation id of this one.
fn caused_by(host: &Client, first: &Value) -> Vec<Value> {
    host.each_event(0).filter(|event| event["correlation_id"] == first["correlation_id"]).collect()
}

#[test]
fn steps_and_undos_are_for_the_starter_after_a_kill_and_an_act_of_an_operator_too() {
    // Without the delivery service no order can be scheduled, and no such step undone.
    let services = ["inventory", "order", "payment", "report"].map(|service| (service, plugin(service)));
    let retries = format!("[retries]\nbefore_pivot = {ONE_ATTEMPT}\nundo = {ONE_ATTEMPT}\n");
    let (site, plugins) = deploy::site(&services, &format!("{}{retries}[auth]\n", configuration()));
    let mut host = site.start();
    let clerk = operator(&site, &host).signed_in("cleo", &["clerk"]);
    clerk.register("apple", 300, 10);
    let ada = operator(&site, &host).signed_in("ada", &[]);
    let placed = ada.place(&order(&[("apple", 2)])).ok();
    let saga = placed["saga"]["id"].as_str().unwrap();
    assert_eq!(placed["saga"]["state"], "parked");

    host.kill();
    fs::write(plugins.path().join("delivery.wasm"), plugin("delivery")).unwrap();
    host = site.start();
    let operator = operator(&site, &host);
    let retried = operator.post(&format!("/admin/sagas/{saga}/retry"), &[SAGA_END], &json!({})).ok();
    assert_eq!(
        (&retried["state"], &retried["started_by"]),
        (&json!("compensated"), &json!({"actor": "ada"}))
    );
    let created = &operator.history(&format!("order/{}", placed["id"].as_str().unwrap()))[0];
    let via = json!(format!("saga:{saga}"));
    let mut kinds = BTreeSet::new();
    for event in caused_by(&operator, created) {
        let by = match event["name"].as_str().unwrap() {
            "order-created" => (json!("ada"), Value::Null),
            "resumed" => (json!("operator"), Value::Null),
            _ => (json!("ada"), via.clone()),
        };
        assert_eq!((&event["actor"], &event["via"]), (&by.0, &by.1), "{event}");
        kinds.insert(event["name"].as_str().unwrap().to_owned());
    }
    for name in ["stock-reserved", "payment-cancelled", "order-cancelled", "parked", "resumed", "undone"] {
        assert!(kinds.contains(name), "{name} is not among {kinds:?}");
    }
}

#[test]
fn a_saga_that_an_event_of_another_one_starts_shows_through_what_its_starter_acted() {
    let (site, _plugins) = deploy::site(&[("inventory", plugin("inventory"))], "[auth]\n");
    let host = site.start();
    let operator = operator(&site, &host);
    operator.deploy(&fixture("thanks"), FOR_THANKS).ok();
    operator.signed_in("cleo", &["clerk"]).register("apple", 300, 10);
    let saga = |name: &str| {
        let listed = || operator.get(&format!("/admin/sagas?saga={name}")).ok()["items"].take();
        let listed = when(listed, |sagas| sagas[0]["id"].is_string());
        listed[0]["id"].as_str().unwrap().to_owned()
    };
    let (id, first) = (saga("nap"), saga("thank"));
    let expected = json!({"actor": "cleo", "via": format!("saga:{first}")});
    for path in [format!("/sagas/{id}"), format!("/admin/sagas/{id}")] {
        assert_eq!(operator.get(&path).ok()["started_by"], expected);
    }
    let token = site.data().join("operator.token").display().to_string();
    let printed = |arguments: &[&str]| {
        let program = ended(kontor(arguments).args(["--host", host.url(), "--token-file", &token]));
        assert!(program.status.success(), "{}", program.stderr);
        program.stdout
    };
    let shown = printed(&["saga", "show", &id]);
    assert!(shown.contains(&format!("by       cleo via saga:{first}\n")), "{shown}");
    let events = printed(&["events"]);
    assert!(events.contains(&format!("cleo via saga:{}  ", &first[..13])), "{events}");
}

#[test]
fn the_host_that_takes_a_saga_over_goes_on_for_its_starter() {
    const BEASTS: usize = 8;
    let server = NatsServer::start();
    let [left_site, right_site] = ["left", "right"]
        .map(|name| Site::new(&format!("{}[auth]\n", nodes::configuration(name, &server, &server.url()))));
    let mut left = left_site.start();
    let token = fs::read_to_string(left_site.data().join("operator.token")).unwrap();
    let right_host = right_site.start();
    let right = right_host.with_token(&token);
    let on_left = left.with_token(&token);
    both_up(&on_left);
    on_left.deploy(&fixture("unruly"), &granting(&["service:oracle", "service:inventory"])).ok();
    let ada = on_left.signed_in("ada", &[]);
    let wait = json!({"deaf_days": 0, "days": 1});
    for beast in 0..BEASTS {
        ada.post(&format!("/beasts/beast-{beast}/listen"), &[], &wait).ok();
    }
    let sagas = |state: &str| right.get(&format!("/admin/sagas?state={state}")).ok()["items"].take();
    when(|| sagas("waiting"), |sagas| sagas.as_array().unwrap().len() == BEASTS);
    left.kill();
    nodes_when(&right, &[("left", "silent"), ("right", "up")]);
    let bob = right.signed_in("bob", &[]);
    for beast in 0..BEASTS {
        bob.post(&format!("/beasts/beast-{beast}/wait"), &[], &json!({})).ok();
    }
    when(|| sagas("completed"), |sagas| sagas.as_array().unwrap().len() == BEASTS);
    let steps: Vec<_> = right
        .each_event(0)
        .filter(|event| event["stream"].as_str().unwrap().contains("-heard-"))
        .map(|event| (event["actor"].clone(), event["via"].is_string()))
        .collect();
    assert_eq!(steps, vec![(json!("ada"), true); BEASTS]);
}
