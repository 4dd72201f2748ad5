//! Two hosts that share the log of a server, and the state in which each sees the other.

use std::time::{Duration, Instant};

use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};

use super::Site;
use super::http::Client;
use super::nats::configured;

/// The heartbeat timeout, as short as the configuration allows.
const SILENCE_MS: u64 = 1_000;
/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Returns the sites of two hosts that share the log of a server.
pub(crate) fn sites(server: &NatsServer) -> [Site; 2] {
    ["left", "right"].map(|name| site(name, server, &server.url()))
}

/// Returns the site of a host that reaches the server at `url`.
pub(crate) fn site(name: &str, server: &NatsServer, url: &str) -> Site {
    Site::new(&configuration(name, server, url))
}

/// Returns the configuration of such a host.
pub(crate) fn configuration(name: &str, server: &NatsServer, url: &str) -> String {
    format!(
        "name = '{name}'\nlog = 'jetstream'\n{}[jetstream]\nmonitoring = ['{}']\nsilence_ms = {SILENCE_MS}\n",
        configured(url),
        server.monitoring_url()
    )
}

/// Waits until a host sees the cluster's members in these states. Returns its list of members.
#[track_caller]
pub(crate) fn nodes_when(host: &Client, wanted: &[(&str, &str)]) -> Vec<Value> {
    let nodes = when(
        || host.get("/admin/nodes").ok()["items"].take(),
        |nodes| {
            let state = |node: &Value| (node["name"].clone(), node["state"].clone());
            let states: Vec<_> = nodes.as_array().unwrap().iter().map(state).collect();
            wanted.iter().all(|(name, wanted)| states.contains(&(json!(name), json!(wanted))))
        },
    );
    nodes.as_array().unwrap().clone()
}

#[track_caller]
pub(crate) fn both_up(host: &Client) -> Vec<Value> {
    nodes_when(host, &[("left", "up"), ("right", "up")])
}

/// Waits until each host has all events that the other has by now. A host answers from its copy of the log,
/// so it may refuse an order of a product that another host has just registered.
#[track_caller]
pub(crate) fn level(hosts: [&Client; 2]) {
    let end = hosts.map(Client::head).into_iter().max();
    for host in hosts {
        when(|| host.head().into(), |head| head.as_u64() >= end);
    }
}

/// Calls `look` until its result is as wanted. Returns that result.
#[track_caller]
pub(crate) fn when(look: impl Fn() -> Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let seen = look();
        if wanted(&seen) {
            return seen;
        }
        assert!(start.elapsed() < LIMIT, "it does not come: {seen}");
    }
}
