//! Versions swapped while orders are placed: no caller notices, and each order ends on the version that it
//! began with.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kontor::model::Digest;
use kontor_testkit::shop::step_order::{self, PAYS_FIRST, RESERVES_FIRST};

use crate::common::deploy::{fixture, plugin};
use crate::common::http::Client;
use crate::common::shop::{UNDELIVERABLE, Wanted, configuration, new_key, order};
use crate::common::{Site, audit};

/// The number of orders and the time between two: six seconds in total.
const ORDERS: usize = 240;
const EVERY: Duration = Duration::from_millis(25);
/// The clients that send them: more than are ever answered at the same time, so that no order waits for the
/// reply to another.
const CLIENTS: usize = 16;
/// The time between two deployments.
const SWAP_EVERY: Duration = Duration::from_millis(500);

/// Returns an order and its final status. One in four is rejected at its last step.
fn wanted(number: usize) -> (Wanted, &'static str) {
    let wanted = order(&[("apple", 2), ("pear", 1)]);
    match number % 4 {
        0 => (wanted.sent_to(UNDELIVERABLE), "cancelled"),
        _ => (wanted, "confirmed"),
    }
}

/// Sends each order when it is due, without waiting for sagas. Returns the final status of each, by id.
fn place_all(host: &Client) -> BTreeMap<String, String> {
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    let send = || {
        let mut placed = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= ORDERS {
                return placed;
            }
            thread::sleep((EVERY * number as u32).saturating_sub(begun.elapsed()));
            let ((wanted, becomes), key) = (wanted(number), new_key());
            let reply = host.post("/orders", &[("idempotency-key", &key)], &wanted.json());
            assert_eq!(reply.status, 202, "{}", reply.text);
            placed.push((key, becomes.to_owned()));
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(send)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn orders_are_placed_while_their_service_is_swapped_again_and_again() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("apple", 300, 1_000_000);
    host.register("pear", 250, 1_000_000);
    let versions = [fixture("next-order"), plugin("order")];
    let place = || host.place(&wanted(1).0).ok()["id"].as_str().unwrap().to_owned();
    let early = place();
    let mut by_the_way = vec![early.clone()];

    let (mut placed, swaps) = thread::scope(|scope| {
        let placing = scope.spawn(|| place_all(&host));
        let mut swaps = 0;
        while !placing.is_finished() {
            let due = Instant::now() + SWAP_EVERY;
            let report = host.deploy(&versions[swaps % 2], "").ok();
            assert_eq!(report["live"], true, "{report}");
            // Only the next version shows the address of an order's screen.
            let shown = host.get(&format!("/orders/{early}")).ok();
            assert_eq!(shown.get("screen").is_some(), swaps % 2 == 0, "{shown}");
            // Each version gets some orders, however slowly the machine deploys.
            by_the_way.push(place());
            swaps += 1;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        (placing.join().unwrap(), swaps)
    });

    placed.extend(by_the_way.into_iter().map(|id| (id, wanted(1).1.to_owned())));
    assert_eq!(audit::check(&host), placed);
    let [next, current] = versions.each_ref().map(|wasm| Digest::of(wasm).to_string());
    let orders = HashMap::from([(next.clone(), PAYS_FIRST), (current.clone(), RESERVES_FIRST)]);
    let by = step_order::check(host.each_event(0), &orders).by;
    println!("{swaps} swaps; orders by version: {by:?}");
    assert_eq!(by.values().sum::<usize>(), placed.len());
    assert!(by.contains_key(&next) && by.contains_key(&current), "{by:?}");
    let live = host.deployments().iter().filter(|entry| entry["service"] == "order").count();
    assert_eq!(live, 1 + swaps, "each of them is in the history");
}
