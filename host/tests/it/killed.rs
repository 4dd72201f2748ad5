//! A host that ends in the middle of its work: killed, it has lost nothing that it answered; asked to stop,
//! it answers every request that it took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use kontor_testkit::nats::NatsServer;
use kontor_testkit::shop::laws;

use crate::common::http::{Client, NoAnswer, Reply};
use crate::common::shop::{CARD_LIMIT, SAGA_END, UNDELIVERABLE, Wanted, configuration, new_key, order};
use crate::common::{Site, audit, nats, setting};

/// The orders at each kill. `cargo xtask long` sends 200.
const ORDERS: usize = 60;
/// The sagas under way at a kill. `cargo xtask long` has 1,000 of them.
const SAGAS: usize = 250;

/// Registers two products that last for all orders, one that sells out, and one that exceeds the card limit.
fn stock(host: &Client) {
    host.register("apple", 300, 1_000_000);
    host.register("pear", 250, 1_000_000);
    host.register("rarity", 700, 8);
    host.register("yacht", CARD_LIMIT, 1_000_000);
}

/// An order with its idempotency key, which becomes the order's id.
struct Sent {
    key: String,
    wanted: Wanted,
    /// The statuses in which it may end.
    ends: &'static [&'static str],
}

impl Sent {
    /// Returns some orders of each kind.
    fn new(number: usize) -> Self {
        let (wanted, ends): (_, &[&str]) = match number % 5 {
            0 => (order(&[("apple", 2), ("pear", 1)]), &["confirmed"]),
            1 => (order(&[("pear", 3)]).paid(&[("card", "0.9"), ("points", "0.1")]), &["confirmed"]),
            2 => (order(&[("apple", 1), ("rarity", 1)]), &["confirmed", "cancelled"]),
            3 => (order(&[("pear", 1), ("yacht", 2)]), &["cancelled"]),
            _ => (order(&[("apple", 1), ("pear", 1)]).sent_to(UNDELIVERABLE), &["cancelled"]),
        };
        Self { key: new_key(), wanted, ends }
    }

    fn send(&self, host: &Client, wait: &'static str) -> Result<Reply, NoAnswer> {
        let headers = [("idempotency-key", &*self.key), ("prefer", wait)];
        host.try_send("POST", "/orders", &headers, self.wanted.json().to_string())
    }
}

/// Sends all orders at once, and calls `enough` when `answers` of them are answered. Returns the answer to
/// each order, if any.
fn send_at_once(
    host: &Client,
    orders: Vec<Sent>,
    answers: usize,
    enough: impl FnOnce(),
) -> Vec<(Sent, Option<Reply>)> {
    thread::scope(|scope| {
        let (answered, received) = mpsc::channel();
        let send = move |order: Sent| {
            let answered = answered.clone();
            scope.spawn(move || {
                let answer = order.send(host, "wait=0").ok();
                if answer.is_some() {
                    answered.send(()).unwrap();
                }
                (order, answer)
            })
        };
        let senders: Vec<_> = orders.into_iter().map(send).collect();
        assert_eq!(received.iter().take(answers).count(), answers);
        enough();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    })
}

/// Returns `true` if the host took the order. A rejected one must have been for more than the stock.
fn was_taken(answer: &Reply) -> bool {
    match answer.status {
        200..300 => true,
        _ => {
            answer.problem(409, "insufficient-stock");
            false
        }
    }
}

#[test]
fn a_killed_host_has_lost_nothing_that_it_has_answered() {
    let site = Site::new(&configuration());
    kill_again_and_again(&site, || {});
}

#[test]
fn nothing_is_lost_with_the_whole_data_directory_when_the_log_is_in_jetstream() {
    let server = NatsServer::start();
    let site = Site::new(&(nats::with_log(&server) + "silence_ms = 1_000\n"));
    kill_again_and_again(&site, || site.lose_data());
}

/// Kills a host under load, three times. `lose` destroys more than the process.
fn kill_again_and_again(site: &Site, lose: impl Fn()) {
    let mut host = site.start();
    stock(&host);
    let orders = setting("KONTOR_KILLED_ORDERS", ORDERS);
    for answers in [5, 30, 60].map(|percent| orders * percent / 100) {
        let orders: Vec<_> = (0..orders).map(Sent::new).collect();
        let client = Client::clone(&host);
        let outcomes = send_at_once(&client, orders, answers, || host.kill());

        assert!(outcomes.iter().any(|(_, answer)| answer.is_none()), "the host was killed too late");
        lose();
        host = site.start();
        let statuses = audit::check(&host);
        for (sent, answer) in &outcomes {
            let status = statuses.get(&sent.key).map(String::as_str);
            if let Some(answer) = answer {
                assert_eq!(status.is_some(), was_taken(answer), "{} {}", sent.key, answer.text);
            }
            assert!(status.is_none_or(|status| sent.ends.contains(&status)), "{} is {status:?}", sent.key);
        }

        for (sent, _) in &outcomes {
            let again = sent.send(&host, SAGA_END.1).unwrap();
            if was_taken(&again) {
                let body = again.json();
                assert_eq!(body["id"], sent.key);
                let status = body["state"]["status"].as_str().unwrap();
                assert!(sent.ends.contains(&status), "{body}");
            }
        }
        let after: BTreeMap<_, _> = audit::check(&host).into_iter().collect();
        assert!(statuses.iter().all(|(order, status)| after.get(order) == Some(status)));
    }
}

#[test]
fn a_host_that_is_asked_to_end_answers_all_that_it_has_taken() {
    const CLIENTS: usize = 16;
    const ENOUGH: usize = 100;
    let site = Site::new(&configuration());
    let host = site.start();
    stock(&host);
    let numbers = AtomicUsize::new(0);
    let client = Client::clone(&host);
    let outcomes: Vec<(Sent, Option<Reply>)> = thread::scope(|scope| {
        let (answered, received) = mpsc::channel();
        // Each client sends one order after another until one is not taken any more; every second client
        // waits for sagas.
        let (client, numbers) = (&client, &numbers);
        let send = move |wait: &'static str| {
            let answered = answered.clone();
            scope.spawn(move || {
                let mut outcomes = Vec::new();
                loop {
                    let order = Sent::new(numbers.fetch_add(1, Ordering::Relaxed));
                    let answer = order.send(client, wait).ok();
                    answered.send(()).unwrap();
                    let go_on = answer.as_ref().is_some_and(|answer| answer.status != 503);
                    outcomes.push((order, answer));
                    if !go_on {
                        return outcomes;
                    }
                }
            })
        };
        let clients: Vec<_> = ["wait=0", SAGA_END.1].into_iter().cycle().take(CLIENTS).map(send).collect();
        assert_eq!(received.iter().take(ENOUGH).count(), ENOUGH);
        host.terminate();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(host.wait().code(), Some(0));

    let host = site.start();
    let statuses = audit::check(&host);
    for (sent, answer) in &outcomes {
        let taken = answer.as_ref().is_some_and(|answer| answer.status < 300);
        assert_eq!(
            statuses.contains_key(&sent.key),
            taken,
            "{} {:?}",
            sent.key,
            answer.as_ref().map(|a| &a.text)
        );
    }
}

/// Sends orders, and changes and deletions of confirmed orders in between, from many clients until the host
/// is gone.
fn flood(client: &Client, confirmed: &[String]) {
    /// So many that the host takes orders faster than it runs their sagas.
    const CLIENTS: usize = 256;
    let numbers = AtomicUsize::new(0);
    let send = |number: usize| {
        let confirmed = confirmed.get(number / 10).map(|id| format!("/orders/{id}"));
        match (number % 10, confirmed) {
            (3, Some(order)) => client.try_send("DELETE", &order, &[], ""),
            (7, Some(path)) => {
                client.try_send("PUT", &path, &[], order(&[("apple", 3)]).change().to_string())
            }
            _ => Sent::new(number).send(client, "wait=0"),
        }
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| while send(numbers.fetch_add(1, Ordering::Relaxed)).is_ok() {});
        }
    });
}

#[test]
fn sagas_under_way_go_on_by_themselves_after_a_kill() {
    let sagas = setting("KONTOR_KILLED_SAGAS", SAGAS);
    let site = Site::new(&configuration());
    let mut host = site.start();
    stock(&host);
    let client = Client::clone(&host);
    let confirmed: Vec<_> = (0..sagas / 10).map(|_| new_key()).collect();
    for key in &confirmed {
        let wanted = order(&[("apple", 2), ("pear", 1)]);
        client.post("/orders", &[("idempotency-key", key)], &wanted.json()).ok();
    }
    let mut seen = laws::until_quiet(&host);
    thread::scope(|scope| {
        scope.spawn(|| flood(&client, &confirmed));
        for event in client.follow(seen.position) {
            seen.apply(&event);
            if seen.running() == sagas {
                break;
            }
        }
        host.kill();
    });
    assert_eq!(seen.running(), sagas, "the host ended by itself");

    let start = Instant::now();
    host = site.start();
    let ready = start.elapsed();
    laws::until_quiet(&host);
    let took = start.elapsed();
    println!(
        "{sagas} sagas under way at a kill: the host answers again after {ready:?}, \
         all have ended after {took:?}"
    );
    audit::check(&host);
}
