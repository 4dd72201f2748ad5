//! Random orders, and what their users do with them: the same for the same seed, whatever comes of it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;

use kontor::log::{Append, EmbeddedLog, EventLog as _};
use kontor::model::{Meta, StreamId};
use kontor_testkit::log::happened;
use rand::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::Site;
use super::http::{Client, NoAnswer};
use super::shop::{SAGA_END, UNDELIVERABLE, Wanted};

pub(crate) const USERS: [&str; 4] = ["ada", "bob", "eve", "joe"];

/// The products with their prices, how many there are, and how often an order has them. A card is declined for four boats,
/// rarities are soon sold out, and there are no ghosts.
pub(crate) const PRODUCTS: [(&str, u64, u64, f64); 6] = [
    ("apple", 300, PLENTY, 0.6),
    ("boat", 30_000, PLENTY, 0.1),
    ("ghost", 0, 0, 0.01),
    ("pear", 250, PLENTY, 0.6),
    ("plum", 120, PLENTY, 0.5),
    ("rarity", 700, 40, 0.05),
];
const PLENTY: u64 = 1_000_000;

/// How orders are paid, each with its weight. The last one does not add up.
const PAYMENTS: [(&[(&str, &str)], u32); 4] = [
    (&[("card", "1")], 60),
    (&[("points", "0.1"), ("card", "0.9")], 30),
    (&[("points", "1")], 20),
    (&[("card", "0.9")], 2),
];
const REGIONS: [(&str, u32); 3] = [("north", 60), ("south", 35), (UNDELIVERABLE, 5)];

/// What users do with their orders, each with its weight.
const ACTS: [(Act, u32); 4] = [(Act::Change, 50), (Act::Delete, 10), (Act::Start, 20), (Act::Complete, 20)];
const MAX_ACTS: usize = 3;
/// How many requests wait for the end of their saga. What follows the others is often refused.
const PATIENT: f64 = 0.8;

/// Clients that send at the same time: enough to keep sagas of all kinds under way.
const CLIENTS: usize = 48;

/// 2025-03-02T00:00:00Z
const FIRST_MIDNIGHT_MS: u64 = 1_740_873_600_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const MIDNIGHTS: u64 = 4;
/// Every second one was placed a millisecond before.
const ORDERS_AT_MIDNIGHT: u64 = 10;

#[derive(Clone, Copy)]
enum Act {
    Change,
    Delete,
    Start,
    Complete,
}

/// What is still to be sent to a shop.
pub(crate) struct Traffic {
    stories: Mutex<VecDeque<Story>>,
    /// The codes of what was refused.
    refused: Mutex<BTreeSet<String>>,
}

/// The requests about one order. Each is sent when the one before has been answered.
type Story = Vec<Request>;

struct Request {
    key: String,
    method: &'static str,
    path: String,
    body: Value,
    wait: &'static str,
}

impl Traffic {
    /// Puts the products into the log of a site on which no host has run, and some orders of past days, whose sagas the
    /// first host goes on with. No request could place those.
    pub(crate) fn open(site: &Site, seed: u64, orders: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let past = Past::of(site);
        for (product, unit_price, quantity, _) in PRODUCTS.into_iter().filter(|(_, _, there, _)| *there > 0) {
            let payload = json!({"name": name(product), "unit_price": unit_price, "quantity": quantity});
            past.record("product", product, "register", "product-registered", &payload, FIRST_MIDNIGHT_MS);
        }
        let mut stories: VecDeque<_> = (0..orders).map(|_| story(&mut rng)).collect();
        for number in 0..MIDNIGHTS * ORDERS_AT_MIDNIGHT {
            let time_ms = FIRST_MIDNIGHT_MS + number / ORDERS_AT_MIDNIGHT * DAY_MS - number % 2;
            let (id, user) = (format!("past.{number}"), USERS.choose(&mut rng).unwrap());
            let wanted = Wanted {
                lines: vec![("apple".to_owned(), 3), ("pear".to_owned(), rng.random_range(1..=4))],
                payment: vec![("card", "1")],
                region: choose(&REGIONS, &mut rng),
            };
            past.record("order", &id, "create", "order-created", &created(user, &wanted), time_ms);
            stories[rng.random_range(0..orders)].extend(acts(&id, &wanted, &mut rng));
        }
        Self { stories: Mutex::new(stories), refused: Mutex::default() }
    }

    /// Sends requests until so many orders are left, or the host has gone. What it broke off is sent again from the
    /// beginning when this is called the next time.
    pub(crate) fn send(&self, client: &Client, leave: usize) {
        let next = || {
            let mut stories = self.stories.lock().unwrap();
            if stories.len() > leave { stories.pop_front() } else { None }
        };
        let tell = || {
            while let Some(story) = next() {
                if self.tell(client, &story).is_err() {
                    return self.stories.lock().unwrap().push_front(story);
                }
            }
        };
        thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(tell))));
    }

    /// The codes of what was refused.
    pub(crate) fn refused(&self) -> BTreeSet<String> {
        self.refused.lock().unwrap().clone()
    }

    fn tell(&self, client: &Client, story: &Story) -> Result<(), NoAnswer> {
        for Request { key, method, path, body, wait } in story {
            let headers = [("idempotency-key", key.as_str()), ("prefer", wait)];
            let reply = client.try_send(method, path, &headers, body.to_string())?;
            match reply.status {
                200..300 => {}
                404 | 409 | 422 => {
                    let code = reply.json()["code"].as_str().unwrap().to_owned();
                    self.refused.lock().unwrap().insert(code);
                }
                status => panic!("{status} {} to {method} {path}", reply.text),
            }
        }
        Ok(())
    }
}

fn name(product: &str) -> String {
    format!("A {product}")
}

fn choose<T: Copy>(weighted: &[(T, u32)], rng: &mut StdRng) -> T {
    weighted.choose_weighted(rng, |(_, weight)| *weight).unwrap().0
}

/// An order is placed, and then something happens to it.
fn story(rng: &mut StdRng) -> Story {
    let wanted = wanted(rng);
    let mut body = wanted.json();
    body["user_id"] = json!(USERS.choose(rng));
    let place = Request::new("POST", "/orders".to_owned(), body, rng);
    let id = place.key.clone();
    let mut story = vec![place];
    story.extend(acts(&id, &wanted, rng));
    story
}

fn acts(order: &str, ordered: &Wanted, rng: &mut StdRng) -> Vec<Request> {
    let act = |rng: &mut StdRng| {
        let delivery = |act| format!("/deliveries/{order}/{act}");
        let (method, path, body) = match choose(&ACTS, rng) {
            Act::Change => {
                let mut change = wanted(rng);
                change.lines.retain(|(product, _)| ordered.lines.iter().any(|(of, _)| of == product));
                ("PUT", format!("/orders/{order}"), change.change())
            }
            Act::Delete => ("DELETE", format!("/orders/{order}"), json!({})),
            Act::Start => ("POST", delivery("start"), json!({})),
            Act::Complete => ("POST", delivery("complete"), json!({})),
        };
        Request::new(method, path, body, rng)
    };
    (0..rng.random_range(0..=MAX_ACTS)).map(|_| act(rng)).collect()
}

fn wanted(rng: &mut StdRng) -> Wanted {
    let mut lines = Vec::new();
    for (product, _, _, how_often) in PRODUCTS {
        if rng.random_bool(how_often) {
            lines.push((product.to_owned(), rng.random_range(1..=4)));
        }
    }
    Wanted { lines, payment: choose(&PAYMENTS, rng).to_vec(), region: choose(&REGIONS, rng) }
}

impl Request {
    fn new(method: &'static str, path: String, body: Value, rng: &mut StdRng) -> Self {
        let key = Uuid::from_u128(rng.random()).to_string();
        let wait = if rng.random_bool(PATIENT) { SAGA_END.1 } else { "wait=0" };
        Self { key, method, path, body, wait }
    }
}

/// What `order-created` says of an order that is paid by card.
fn created(user: &str, wanted: &Wanted) -> Value {
    let lines = wanted.lines.iter().map(|(product, quantity)| {
        let unit_price = PRODUCTS.iter().find(|(of, ..)| of == product).unwrap().1;
        let amount = unit_price * quantity.unsigned_abs();
        json!({
            "product_id": product, "name": name(product), "quantity": quantity, "unit_price": unit_price,
            "amount": amount,
        })
    });
    let lines: Vec<_> = lines.collect();
    let total: u64 = lines.iter().map(|line| line["amount"].as_u64().unwrap()).sum();
    let mut created = wanted.json();
    created["user_id"] = json!(user);
    created["lines"] = json!(lines);
    created["total"] = json!(total);
    created["payment"] = json!([{"method": "card", "amount": total}]);
    created
}

/// Writes into a log what would have happened on other days.
struct Past {
    log: EmbeddedLog,
    runtime: Runtime,
}

impl Past {
    fn of(site: &Site) -> Self {
        Self { log: EmbeddedLog::open(&site.data()).unwrap(), runtime: Runtime::new().unwrap() }
    }

    /// Puts the first event into a stream.
    fn record(&self, kind: &str, id: &str, command: &str, event: &str, payload: &Value, time_ms: u64) {
        let append = happened(StreamId::new(kind, id).unwrap(), 0, &[(event, payload.clone())]);
        let meta = Meta { command: command.into(), time_ms, ..Meta::clone(&append.meta) };
        let append = Append { meta: Arc::new(meta), ..append };
        self.runtime.block_on(self.log.append(vec![append])).unwrap();
    }
}
