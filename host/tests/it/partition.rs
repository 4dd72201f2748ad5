//! Two hosts on one log. One of them loses its link to the servers, or both lose the server for a while:
//! commands fail clearly meanwhile, the other host takes over the sagas, and everything recovers by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use kontor_testkit::nats::NatsServer;
use kontor_testkit::shop::laws;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::deploy::{folder, plugin};
use crate::common::http::{Client, Reply};
use crate::common::link::{Cut, Link};
use crate::common::nodes::{both_up, configuration, level, nodes_when, site, sites, when};
use crate::common::shop::{SAGA_END, new_key, order};
use crate::common::{Host, Site, audit};

const ORDERS: usize = 48;
/// The number of those orders that are sent after the link is cut.
const LATE: usize = 16;
/// The number of sagas in progress on the host that is cut off.
const SAGAS: usize = 5;
const STOCK: u64 = 1_000;
/// Retries that let a saga without a delivery service run for a second, if no other host takes it.
const SHORT_RUNS: &str = "[retries]
before_pivot = { attempts = 5, first_wait_ms = 100, longest_wait_ms = 400 }
undo = { attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }
";
/// More than the number of times that two hosts take such a saga from one another. Each take is a sign that a
/// host is up, for one second, then two, four and eight, so soon a run fits in.
const MOST_TAKEN: usize = 12;
/// The limit for "within a few seconds" on a busy machine; a loss is detected after two.
const NOTICED: Duration = Duration::from_secs(5);
/// The limit for "at once" on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Orders one tea. The key becomes the order's id.
fn place(host: &Client, key: &str, wait: (&'static str, &str)) -> Reply {
    host.post("/orders", &[("idempotency-key", key), wait], &order(&[("tea", 1)]).json())
}

/// Places all orders, through the hosts in turn: the last of them after `cut`, before any host has detected
/// it. Returns the replies, given at once or after `meanwhile`.
fn place_while(
    hosts: [&Host; 2],
    keys: &[String],
    cut: impl FnOnce(),
    meanwhile: impl FnOnce(),
) -> Vec<Reply> {
    let right = both_up(hosts[0])[1]["id"].take();
    let (early, late) = keys.split_at(keys.len() - LATE);
    thread::scope(|scope| {
        let send = |(number, key): (usize, _)| {
            scope.spawn(move || place(hosts[number % 2], key, ("prefer", "wait=0")))
        };
        let mut senders: Vec<_> = early.iter().map(String::as_str).enumerate().map(send).collect();
        await_sagas(hosts[0], &right);
        cut();
        senders.extend(late.iter().map(String::as_str).enumerate().map(send));
        meanwhile();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    })
}

/// Waits until some sagas are in progress on the host `on`, as another host sees it.
#[track_caller]
fn await_sagas(seen_by: &Client, on: &Value) {
    let mut under_way = BTreeSet::new();
    let many = seen_by.follow(0).find(|event| {
        match event["name"].as_str() {
            Some("taken") if event["payload"]["node"] == *on => under_way.insert(event["stream"].to_string()),
            Some("completed") => under_way.remove(&event["stream"].to_string()),
            _ => false,
        };
        under_way.len() == SAGAS
    });
    many.expect("sagas are begun");
}

fn new_keys() -> Vec<String> {
    (0..ORDERS).map(|_| new_key()).collect()
}

/// Checks that a host reports that it takes no commands, turns them away at once, and answers everything
/// else.
#[track_caller]
fn check_refusing(host: &Host, order: &str) {
    host.await_warning("the log takes no commands at the moment");
    assert_eq!(host.metric("kontor_log_available"), 0.0);
    let asked = Instant::now();
    let refused = place(host, order, ("prefer", "wait=0"));
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    refused.problem(503, "log-unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(host.metric("kontor_log_refused_total") >= 1.0);
    for path in ["/products/tea", "/products", "/reports/orders", "/admin/sagas"] {
        host.get(path).ok();
    }
}

/// Waits until a host reports no problem.
#[track_caller]
fn await_well(host: &Host) {
    both_up(host);
    when(|| host.get("/readyz").ok(), |ready| *ready == json!({"status": "ready"}));
    assert_eq!(host.metric("kontor_log_available"), 1.0);
}

/// Checks that both hosts are ready again and have the same log, with every order in it once.
#[track_caller]
fn check_healed(hosts: [&Host; 2], keys: &[String]) {
    hosts.iter().for_each(|host| await_well(host));
    hosts.iter().for_each(|host| drop(laws::until_quiet(*host)));
    level(hosts.map(|host| &**host));
    let confirmed: BTreeMap<_, _> = keys.iter().map(|key| (key.clone(), "confirmed".to_owned())).collect();
    for host in hosts {
        assert_eq!(audit::check(host), confirmed);
        assert_eq!(host.stock("tea"), (STOCK - keys.len() as u64, keys.len() as u64));
        assert_eq!(host.metric("kontor_log_copy_lag_messages"), 0.0);
    }
    assert_eq!(hosts[0].events(0), hosts[1].events(0));
}

/// Returns the number of sagas that one host started and another continued.
fn handed_over(host: &Client) -> usize {
    let mut takers = BTreeMap::<_, BTreeSet<_>>::new();
    for event in host.each_event(0).filter(|event| event["name"] == "taken") {
        let taker = event["payload"]["node"].as_str().unwrap().to_owned();
        takers.entry(event["stream"].as_str().unwrap().to_owned()).or_default().insert(taker);
    }
    takers.values().filter(|takers| takers.len() > 1).count()
}

/// Cuts off the host `right` while it has commands and sagas in progress; `left` completes them all.
fn check_partition(cut: Cut) {
    let server = NatsServer::start();
    let link = Link::to(&server.url());
    let (left_site, right_site) = (site("left", &server, &server.url()), site("right", &server, &link.url()));
    let (left, right) = (left_site.start(), right_site.start());
    both_up(&right);
    left.register("tea", 450, STOCK);
    level([&left, &right]);
    let (mut keys, refused) = (new_keys(), new_key());
    let meanwhile = || {
        let begun = Instant::now();
        check_refusing(&right, &refused);
        assert!(begun.elapsed() < NOTICED, "{:?}", begun.elapsed());
        right.await_warning("does not hear itself over NATS");

        nodes_when(&left, &[("left", "up"), ("right", "silent")]);
        let placed = audit::check(&left);
        assert!(placed.values().all(|status| status == "confirmed"), "{placed:?}");
        assert!(handed_over(&left) > 0, "no saga was under way on the host that was cut off");

        // The sagas are still in progress there, as far as `right` knows.
        for key in keys.iter().chain([&refused]) {
            let again = place(&left, key, SAGA_END).ok();
            assert_eq!((&again["id"], &again["state"]["status"]), (&json!(key), &json!("confirmed")));
        }
        link.heal();
    };
    let replies = place_while([&left, &right], &keys, || link.cut(cut), meanwhile);
    for (key, reply) in keys.iter().zip(replies) {
        match reply.status {
            503 => drop(reply.problem(503, "log-unavailable")),
            _ => assert_eq!(reply.ok()["id"], *key),
        }
    }
    keys.push(refused);
    check_healed([&left, &right], &keys);
    let last = new_key();
    assert_eq!(place(&right, &last, SAGA_END).ok()["state"]["status"], "confirmed");
}

/// Returns how often each saga was taken by a host.
fn times_taken(host: &Client) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for event in host.each_event(0).filter(|event| event["name"] == "taken") {
        *times.entry(event["stream"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    times
}

/// A network that is cut between two hosts and nowhere else. There is no delivery service, so each saga runs
/// for a second.
#[test]
fn hosts_that_reach_the_log_and_not_each_other_do_not_take_sagas_from_one_another_without_end() {
    let (server, leaves) = NatsServer::parted("kontor-log-nodes");
    let plugins = folder(&["inventory", "order", "payment", "report"].map(|name| (name, plugin(name))));
    let names = ["left", "right"];
    let sites = [0, 1].map(|number| {
        let configuration = configuration(names[number], &server, &leaves[number].url());
        Site::with_plugins(plugins.path(), &format!("{configuration}{SHORT_RUNS}"))
    });
    let hosts = sites.each_ref().map(Site::start);
    hosts[0].register("tea", 450, STOCK);
    level([&hosts[0], &hosts[1]]);
    thread::scope(|scope| {
        for host in hosts.iter().chain(&hosts).chain(&hosts) {
            scope.spawn(move || {
                let placed = place(host, &new_key(), SAGA_END).ok();
                assert_eq!(placed["saga"]["state"], "parked");
            });
        }
    });
    for (host, name) in hosts.iter().zip(names) {
        let nodes = host.get("/admin/nodes").ok()["items"].take();
        let seen: Vec<_> = nodes.as_array().unwrap().iter().map(|node| node["name"].clone()).collect();
        assert_eq!(seen, [name], "it hears only itself");
    }
    let times = times_taken(&hosts[0]);
    let most = times.values().max().copied();
    assert!((1..=MOST_TAKEN).contains(&most.unwrap_or_default()), "{times:?}");
}

#[test]
fn a_host_that_is_cut_off_without_a_word() {
    check_partition(Cut::Silent);
}

#[test]
fn a_host_whose_connections_are_broken() {
    check_partition(Cut::Broken);
}

#[test]
fn a_server_that_stands_still_under_load() {
    let server = NatsServer::start();
    let [left, right] = sites(&server);
    let (left, right) = (left.start(), right.start());
    both_up(&right);
    left.register("tea", 450, STOCK);
    level([&left, &right]);
    let (mut keys, refused) = (new_keys(), [new_key(), new_key()]);
    let signal = |signal| kill_process(Pid::from_raw(server.pid().unwrap() as i32).unwrap(), signal).unwrap();
    let meanwhile = || {
        check_refusing(&left, &refused[0]);
        check_refusing(&right, &refused[1]);
        signal(Signal::CONT);
    };
    let replies = place_while([&left, &right], &keys, || signal(Signal::STOP), meanwhile);
    let answered: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert!(
        answered.iter().all(|status| (200..300).contains(status)),
        "what was under way is waited for: {answered:?}"
    );
    await_well(&left);
    for key in &refused {
        assert_eq!(place(&left, key, SAGA_END).ok()["state"]["status"], "confirmed");
    }
    keys.extend(refused);
    check_healed([&left, &right], &keys);
}
