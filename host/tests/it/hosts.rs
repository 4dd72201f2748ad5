//! Several hosts on one log: each takes any command and runs its share of the sagas, the others take over the
//! sagas of a host that dies, and a deployment through one host runs on all.

use std::collections::BTreeSet;
use std::fs;

use kontor::model::Digest;
use kontor_testkit::nats::NatsServer;
use kontor_testkit::shop::laws;
use serde_json::json;

use crate::common::deploy::{fixture, plugin, rebuilt};
use crate::common::http::Client;
use crate::common::nodes::{both_up, level, nodes_when, sites, when};
use crate::common::shop::{SAGA_END, UNDELIVERABLE, new_key, order};
use crate::common::{Host, audit};

/// Returns the hosts that have run sagas, read from the journals.
fn runners(host: &Client) -> BTreeSet<String> {
    let taken = host.each_event(0).filter(|event| event["name"] == "taken");
    taken.map(|event| event["payload"]["node"].as_str().unwrap().to_owned()).collect()
}

/// Places orders through the hosts in turn; some of them cannot be delivered. Returns their ids.
fn place(hosts: [&Host; 2], orders: usize) -> Vec<String> {
    let place = |number: usize| {
        let wanted = order(&[("tea", 1), ("pot", 1)]);
        let wanted = if number.is_multiple_of(5) { wanted.sent_to(UNDELIVERABLE) } else { wanted };
        let key = new_key();
        hosts[number % 2]
            .post("/orders", &[("idempotency-key", &key), ("prefer", "wait=0")], &wanted.json())
            .ok();
        key
    };
    (0..orders).map(place).collect()
}

#[test]
fn any_host_takes_any_command_and_each_runs_its_share_of_the_sagas() {
    let server = NatsServer::start();
    let [left, right] = sites(&server);
    let (left, right) = (left.start(), right.start());
    let nodes = both_up(&left);
    assert_eq!(both_up(&right).len(), 2);
    assert_eq!(nodes[1]["address"], right.url().strip_prefix("http://").unwrap());

    left.register("tea", 5, 1_000);
    right.register("pot", 7, 1_000);
    level([&left, &right]);
    let orders = place([&left, &right], 40);
    let on_left = audit::check(&left);
    level([&left, &right]);
    assert_eq!(on_left, audit::check(&right));
    assert!(orders.iter().all(|order| ["confirmed", "cancelled"].contains(&&*on_left[order])));
    assert_eq!(left.events(0), right.events(0));
    assert_eq!(runners(&left).len(), 2);

    // A refusal under a key is the answer of every host.
    let remove = |host: &Host| {
        let key = [("idempotency-key", "remove-tea")];
        host.post("/products/tea/remove-stock", &key, &json!({"quantity": 1_500}))
    };
    let refused = remove(&left).problem(409, "insufficient-stock");
    right.post("/products/tea/add-stock", &[], &json!({"quantity": 1_000})).ok();
    assert_eq!(remove(&right).problem(409, "insufficient-stock"), refused);
    assert_eq!(remove(&left).problem(409, "insufficient-stock"), refused);

    // A client that waits for a saga gets its end, whichever host runs it.
    for number in 0..8 {
        let host = if number % 2 == 0 { &left } else { &right };
        let placed = host.post("/orders", &[SAGA_END], &order(&[("tea", 1)]).json()).ok();
        assert_eq!(placed["state"]["status"], "confirmed");
    }

    assert!(left.stop().success());
    nodes_when(&right, &[("left", "left"), ("right", "up")]);
}

#[test]
fn the_sagas_of_a_host_that_is_killed_go_on_where_there_is_another() {
    let server = NatsServer::start();
    let [left_site, right_site] = sites(&server);
    let (mut left, right) = (left_site.start(), right_site.start());
    both_up(&left);
    left.register("tea", 5, 1_000);
    left.register("pot", 7, 1_000);
    level([&left, &right]);
    let orders = place([&left, &right], 30);
    left.kill();
    nodes_when(&right, &[("left", "silent"), ("right", "up")]);
    let statuses = audit::check(&right);
    assert!(orders.iter().all(|order| ["confirmed", "cancelled"].contains(&&*statuses[order])));

    // The host comes back and has missed nothing.
    let left = left_site.start();
    both_up(&right);
    assert_eq!(audit::check(&left), statuses);
}

#[test]
fn sagas_that_wait_on_a_host_that_is_killed_are_woken_on_another() {
    let server = NatsServer::start();
    let [left, right] = sites(&server);
    let (mut left, right) = (left.start(), right.start());
    both_up(&left);
    left.deploy(&fixture("unruly"), "?grant=service:oracle&grant=service:inventory").ok();
    let beasts: Vec<String> = (0..8).map(|number| format!("beast-{number}")).collect();
    for beast in &beasts {
        left.post(&format!("/beasts/{beast}/listen"), &[], &json!({"deaf_days": 0, "days": 1})).ok();
    }
    let sagas = |state: &str| right.get(&format!("/admin/sagas?state={state}")).ok()["items"].take();
    when(|| sagas("waiting"), |sagas| sagas.as_array().unwrap().len() == beasts.len());
    assert_eq!(runners(&right).len(), 2);
    left.kill();
    for beast in &beasts {
        right.post(&format!("/beasts/{beast}/wait"), &[], &json!({})).ok();
    }
    when(|| sagas("completed"), |sagas| sagas.as_array().unwrap().len() == beasts.len());
}

#[test]
fn what_is_deployed_through_one_host_runs_on_all() {
    let server = NatsServer::start();
    let [left_site, right_site] = sites(&server);
    let (left, right) = (left_site.start(), right_site.start());
    both_up(&left);
    let newer = rebuilt(plugin("inventory"));
    let report = left.deploy(&newer, "").ok();
    let hosts: Vec<_> =
        report["hosts"].as_array().unwrap().iter().map(|host| json!([host["name"], host["runs"]])).collect();
    assert_eq!(hosts, [json!(["left", true]), json!(["right", true])]);
    let digest = Some(Digest::of(&newer).to_string());
    assert_eq!((left.digest("inventory"), right.digest("inventory")), (digest.clone(), digest.clone()));

    // A host that was down gets the component from the others, not from its own directory.
    assert!(right.stop().success());
    right_site.lose_data();
    let right = right_site.start();
    assert_eq!(right.digest("inventory"), digest);

    // A rollback through one host takes effect on all that it knows.
    both_up(&left);
    both_up(&right);
    let report = right.roll_back("inventory", &json!({})).ok();
    assert!(report["hosts"].as_array().unwrap().iter().all(|host| host["runs"] == true), "{report}");
    assert_eq!(left.digest("inventory"), Some(Digest::of(&plugin("inventory")).to_string()));
    left.register("tea", 5, 10);
    level([&left, &right]);
    assert_eq!(laws::until_quiet(&right).running(), 0);
}

#[test]
fn two_hosts_with_one_identity_say_so_and_run_no_saga_until_one_is_gone() {
    let server = NatsServer::start();
    let [left_site, right_site] = sites(&server);
    let left = left_site.start();
    fs::copy(left_site.data().join("node"), right_site.data().join("node")).unwrap();
    let mut right = right_site.start();
    for host in [&*left, &*right] {
        let warnings = || host.get("/readyz").ok()["warnings"].take();
        when(warnings, |warnings| warnings.to_string().contains("delete the file node"));
    }
    left.register("tea", 5, 1_000);
    left.register("pot", 7, 1_000);
    level([&left, &right]);
    let orders = place([&left, &right], 4);
    assert_eq!(runners(&left).len(), 0);
    right.kill();
    let statuses = audit::check(&left);
    assert!(orders.iter().all(|order| ["confirmed", "cancelled"].contains(&&*statuses[order])));
}
