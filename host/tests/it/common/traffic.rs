//! Random orders, and the requests that follow them: the same for the same seed, whatever the answers are.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;

use kontor::log::{Append, EmbeddedLog, EventLog as _};
use kontor::model::{Meta, StreamId, Version};
use kontor_testkit::log::happened;
use rand::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::Site;
use super::http::{Client, NoAnswer, Reply};
use super::shop::{SAGA_END, UNDELIVERABLE, Wanted};

pub(crate) const USERS: [&str; 4] = ["ada", "bob", "eve", "joe"];

/// The products: price, stock, and the share of orders that contain them. A card is declined for four boats,
/// rarities soon sell out, and ghosts do not exist.
pub(crate) const PRODUCTS: [(&str, u64, u64, f64); 6] = [
    ("apple", 300, PLENTY, 0.6),
    ("boat", 30_000, PLENTY, 0.1),
    ("ghost", 0, 0, 0.01),
    ("pear", 250, PLENTY, 0.6),
    ("plum", 120, PLENTY, 0.5),
    ("rarity", 700, 40, 0.05),
];
const PLENTY: u64 = 1_000_000;

/// The payments of orders, each with its weight. The shares of the last one do not add up.
const PAYMENTS: [(&[(&str, &str)], u32); 4] = [
    (&[("card", "1")], 60),
    (&[("points", "0.1"), ("card", "0.9")], 30),
    (&[("points", "1")], 20),
    (&[("card", "0.9")], 2),
];
const REGIONS: [(&str, u32); 3] = [("north", 60), ("south", 35), (UNDELIVERABLE, 5)];

/// The requests that follow an order, each with its weight.
const ACTS: [(Act, u32); 4] = [(Act::Change, 50), (Act::Delete, 10), (Act::Start, 20), (Act::Complete, 20)];
const MAX_ACTS: usize = 3;
/// The share of requests that wait for the end of their saga. A request after one that does not wait is often
/// rejected.
const PATIENT: f64 = 0.8;

/// The clients that send at the same time: enough to keep sagas of all kinds in progress.
const CLIENTS: usize = 48;

/// 2025-03-02T00:00:00Z
const FIRST_MIDNIGHT_MS: u64 = 1_740_873_600_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const MIDNIGHTS: u64 = 4;
/// Every second one was placed a millisecond before midnight.
const ORDERS_AT_MIDNIGHT: u64 = 10;

#[derive(Clone, Copy)]
enum Act {
    Change,
    Delete,
    Start,
    Complete,
}

/// Registers all products.
pub(crate) fn stock(host: &Client) {
    for (product, unit_price, quantity) in in_stock() {
        host.register(product, unit_price, quantity);
    }
}

/// The requests still to be sent to a shop.
pub(crate) struct Traffic {
    stories: Mutex<VecDeque<Story>>,
    /// The codes of the rejections.
    rejected: Mutex<BTreeSet<String>>,
}

/// The requests about one order. Each is sent when the one before has been answered.
pub(crate) type Story = Vec<Request>;

pub(crate) struct Request {
    pub(crate) key: String,
    method: &'static str,
    path: String,
    body: Value,
    wait: &'static str,
}

impl Traffic {
    /// Appends the products to the log of a new site, and some orders of past days, which no request could
    /// place. The next host runs their sagas.
    pub(crate) fn open(site: &Site, seed: u64, orders: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let past = Past::of(site);
        for (product, unit_price, quantity) in in_stock() {
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
        Self { stories: Mutex::new(stories), rejected: Mutex::default() }
    }

    /// Sends requests until this many orders are left or the host is gone. An interrupted story is sent again
    /// from its beginning by the next call.
    pub(crate) fn send(&self, client: &Client, leave: usize) {
        let next = || {
            let mut stories = self.stories.lock().unwrap();
            if stories.len() > leave { stories.pop_front() } else { None }
        };
        let send_stories = || {
            while let Some(story) = next() {
                if self.send_story(client, &story).is_err() {
                    return self.stories.lock().unwrap().push_front(story);
                }
            }
        };
        thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(send_stories))));
    }

    /// Returns the codes of the rejections.
    pub(crate) fn rejected(&self) -> BTreeSet<String> {
        self.rejected.lock().unwrap().clone()
    }

    fn send_story(&self, client: &Client, story: &Story) -> Result<(), NoAnswer> {
        for request in story {
            if let Err(code) = request.outcome(&request.send(client)?) {
                self.rejected.lock().unwrap().insert(code);
            }
        }
        Ok(())
    }
}

/// Returns the products in stock, with their prices and quantities.
fn in_stock() -> impl Iterator<Item = (&'static str, u64, u64)> {
    let all = PRODUCTS.into_iter().map(|(product, unit_price, quantity, _)| (product, unit_price, quantity));
    all.filter(|(_, _, quantity)| *quantity > 0)
}

fn name(product: &str) -> String {
    format!("A {product}")
}

fn choose<T: Copy>(weighted: &[(T, u32)], rng: &mut StdRng) -> T {
    weighted.choose_weighted(rng, |(_, weight)| *weight).unwrap().0
}

/// Returns the requests that place an order and those that follow it.
pub(crate) fn story(rng: &mut StdRng) -> Story {
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

    /// Returns a request that adds to an ample stock: no saga follows.
    pub(crate) fn add_stock(rng: &mut StdRng) -> Self {
        Self::new("POST", "/products/apple/add-stock".to_owned(), json!({"quantity": 1}), rng)
    }

    pub(crate) fn send(&self, client: &Client) -> Result<Reply, NoAnswer> {
        let headers = [("idempotency-key", &*self.key), ("prefer", self.wait)];
        client.try_send(self.method, &self.path, &headers, self.body.to_string())
    }

    /// Returns the code of the rejection if the request was rejected.
    #[track_caller]
    pub(crate) fn outcome(&self, reply: &Reply) -> Result<(), String> {
        match reply.status {
            200..300 => Ok(()),
            404 | 409 | 422 => Err(reply.json()["code"].as_str().unwrap().to_owned()),
            status => panic!("{status} {} to {} {}", reply.text, self.method, self.path),
        }
    }
}

/// Returns the payload of `order-created` for an order that is paid by card.
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

/// A writer of events of past days.
struct Past {
    log: EmbeddedLog,
    runtime: Runtime,
}

impl Past {
    fn of(site: &Site) -> Self {
        // The deployment of the services comes first: an event before it would start no saga.
        assert!(site.start().stop().success());
        Self { log: EmbeddedLog::open(&site.data()).unwrap(), runtime: Runtime::new().unwrap() }
    }

    /// Appends the first event of a stream.
    fn record(&self, kind: &str, id: &str, command: &str, event: &str, payload: &Value, time_ms: u64) {
        let append = happened(StreamId::new(kind, id).unwrap(), Version::START, &[(event, payload.clone())]);
        let meta = Meta { command: command.into(), time_ms, ..Meta::clone(&append.meta) };
        let append = Append { meta: Arc::new(meta), ..append };
        self.runtime.block_on(self.log.append(vec![append])).unwrap();
    }
}
