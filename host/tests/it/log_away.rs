//! A log in NATS whose server goes away and comes back: commands fail clearly meanwhile, everything else
//! keeps working, and the host recovers by itself.

use std::thread;
use std::time::{Duration, Instant};

use kontor_testkit::nats::NatsServer;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::common::http::{Client, Reply};
use crate::common::nats::with_log;
use crate::common::shop::{new_key, order};
use crate::common::{Site, audit};

const ORDERS: u64 = 12;
/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// The limit for "at once" on a busy machine. A command without a known outage is retried for 15 s.
const AT_ONCE: Duration = Duration::from_secs(1);

fn add_tea(host: &Client, key: &str, quantity: u64) -> Reply {
    host.post("/products/tea/add-stock", &[("idempotency-key", key)], &json!({"quantity": quantity}))
}

/// Sends a command until it is accepted. Returns how often it was turned away.
#[track_caller]
pub(crate) fn add_tea_at_last(host: &Client, quantity: u64) -> u32 {
    let (key, deadline) = (new_key(), Instant::now() + LIMIT);
    let mut refusals = 0;
    loop {
        let reply = add_tea(host, &key, quantity);
        if reply.status != 503 {
            reply.ok();
            return refusals;
        }
        refusals += 1;
        assert!(Instant::now() < deadline, "{}", reply.text);
    }
}

/// Takes the server away in the middle of sagas and of a command, and brings it back. Returns how often that
/// command was turned away.
fn check(away: impl FnOnce(&mut NatsServer), back: impl FnOnce(&mut NatsServer)) -> u32 {
    let mut server = NatsServer::start();
    let site = Site::new(&with_log(&server));
    let host = site.start();
    host.register("tea", 450, 1_000);
    let placed: Vec<String> = (0..ORDERS)
        .map(|_| {
            host.post("/orders", &[], &order(&[("tea", 1)]).json()).ok()["id"].as_str().unwrap().to_owned()
        })
        .collect();

    away(&mut server);
    let client = Client::clone(&host);
    let under_way = thread::spawn(move || add_tea_at_last(&client, 5));
    host.await_warning("the log takes no commands at the moment");
    let asked = Instant::now();
    let refused = add_tea(&host, &new_key(), 7);
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    let problem = refused.problem(503, "log-unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("Nothing was done"), "{problem}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(host.metric("kontor_sagas{state=\"running\"}") > 0.0, "no saga was in the middle of its steps");
    assert_eq!(host.metric("kontor_log_available"), 0.0);
    assert!(host.metric("kontor_log_refused_total") >= 1.0);
    assert_eq!(host.get("/readyz").status, 200, "queries may come");
    for path in ["/products/tea", "/products", "/reports/orders", &format!("/orders/{}", placed[0])] {
        host.get(path).ok();
    }

    back(&mut server);
    let refusals = under_way.join().unwrap();
    add_tea_at_last(&host, 3);
    let statuses = audit::check(&host);
    assert!(placed.iter().all(|id| statuses[id] == "confirmed"), "{statuses:?}");
    assert_eq!(host.stock("tea"), (1_000 - ORDERS + 5 + 3, ORDERS), "nothing is lost or doubled");
    assert_eq!(host.metric("kontor_log_available"), 1.0);
    assert_eq!(host.metric("kontor_log_copy_lag_messages"), 0.0);
    refusals
}

#[test]
fn a_server_that_is_killed_and_started_again() {
    check(NatsServer::kill, NatsServer::restart);
}

#[test]
fn a_server_that_is_silent_for_a_while() {
    let signal = |signal| {
        move |server: &mut NatsServer| {
            let pid = Pid::from_raw(server.pid().unwrap() as i32).unwrap();
            kill_process(pid, signal).unwrap();
        }
    };
    let refusals = check(signal(Signal::STOP), signal(Signal::CONT));
    assert_eq!(refusals, 0, "what was under way before anybody knew is waited for");
}
