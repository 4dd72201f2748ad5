//! The orders of a year and all their events, the same at every run.

use std::sync::Arc;

use kontor::model::{CommandId, CommitHash, Json, Meta, NewEvent, Position, Recorded, StreamId, Version};
use serde_json::{Value, json};

pub(crate) const PRODUCTS: u64 = 1_000;
const USERS: u64 = 20_000;
/// 2024-01-01.
const START_MS: u64 = 1_704_067_200_000;
const YEAR_MS: u64 = 366 * 86_400_000;

pub(crate) struct Shop {
    pub(crate) orders: u64,
}

impl Shop {
    pub(crate) fn new(orders: u64) -> Self {
        Self { orders }
    }

    pub(crate) fn time_ms(&self, order: u64) -> u64 {
        START_MS
            + u64::try_from(u128::from(order) * u128::from(YEAR_MS) / u128::from(self.orders))
                .unwrap_or(YEAR_MS)
    }

    /// Returns the id of an order. The ids are ordered by time, like UUIDs of version 7.
    pub(crate) fn id(&self, order: u64) -> String {
        let (time, random) = (self.time_ms(order), random(order, 0));
        format!("{:08x}-{:04x}-7000-8000-{:012x}", time >> 16, time & 0xffff, random >> 16)
    }

    /// Returns the events of all orders. One in ten is cancelled, one in twenty is changed, one in fifty is
    /// deleted, and the last ones are pending.
    pub(crate) fn events(&self) -> impl Iterator<Item = Recorded> + '_ {
        (0..self.orders).flat_map(|order| self.history(order))
    }

    fn history(&self, order: u64) -> Vec<Recorded> {
        let (id, time_ms) = (self.id(order), self.time_ms(order));
        let lines = lines(order, 1);
        let mut events = vec![
            ("order", "order-created", created(order, &lines)),
            ("payment", "payment-authorized", payment(&lines)),
            ("delivery", "delivery-scheduled", json!({"address": address()})),
        ];
        let nothing = || json!({});
        match order {
            _ if order + 100 > self.orders => {}
            _ if order.is_multiple_of(10) => {
                let reason = json!({"code": "undeliverable", "message": "Nothing is delivered there."});
                events.extend([
                    ("payment", "payment-cancelled", nothing()),
                    ("order", "order-cancelled", json!({ "reason": reason })),
                ]);
            }
            _ => events.push(("order", "order-confirmed", nothing())),
        }
        match order {
            _ if order + 100 > self.orders => {}
            _ if order % 20 == 1 => {
                let next = self::lines(order, 2);
                let bill = bill(&next);
                events.extend([
                    (
                        "order",
                        "order-update-requested",
                        json!({"previous": self::bill(&lines), "next": bill}),
                    ),
                    ("delivery", "delivery-held", nothing()),
                    ("payment", "payment-changed", payment(&next)),
                    ("order", "order-updated", bill),
                    ("delivery", "delivery-resumed", nothing()),
                ]);
            }
            _ if order % 50 == 2 => events.extend([
                ("order", "order-delete-requested", json!({ "lines": lines })),
                ("delivery", "delivery-cancelled", nothing()),
                ("payment", "payment-cancelled", nothing()),
                ("order", "order-deleted", nothing()),
            ]),
            _ => {}
        }
        let meta = meta(&id, time_ms);
        events
            .into_iter()
            .filter_map(|(kind, name, payload)| recorded(kind, &id, name, &payload, &meta))
            .collect()
    }
}

/// Returns the events of an order that is changed twice, oldest first, each of a command of its own.
pub(crate) fn changed_twice(order: u64) -> [(&'static str, Value); 6] {
    let [first, second, third] = [1, 2, 3].map(|quantity| bill(&lines(order, quantity)));
    let request = |previous: &Value, next: &Value| json!({"previous": previous, "next": next});
    [
        ("order-created", created(order, &lines(order, 1))),
        ("order-confirmed", json!({})),
        ("order-update-requested", request(&first, &second)),
        ("order-updated", second.clone()),
        ("order-update-requested", request(&second, &third)),
        ("order-updated", third),
    ]
}

/// Makes an event as it is in the log. Never returns `None`: all ids and payloads are valid.
fn recorded(kind: &str, id: &str, name: &str, payload: &Value, meta: &Arc<Meta>) -> Option<Recorded> {
    let NewEvent { name, payload } = NewEvent { name: name.into(), payload: Json::of(payload).ok()? };
    let stream = StreamId::new(kind, id).ok()?;
    // Position 0: the log that the questions are asked beside is empty, and no read model may be ahead of it.
    let (position, version) = (Position::START, Version::START.next());
    let (meta, hash) = (meta.clone(), CommitHash::GENESIS);
    Some(Recorded { position, stream, version, index: 0, name, payload, meta, hash })
}

fn meta(id: &str, time_ms: u64) -> Arc<Meta> {
    Arc::new(Meta {
        command_id: CommandId::from_key(id),
        command: "bench".into(),
        fingerprint: 0,
        correlation_id: "bench".into(),
        causation_id: None,
        digest: None,
        time_ms,
        actor: "bench".into(),
        ..Meta::default()
    })
}

fn created(order: u64, lines: &[Value]) -> Value {
    let mut created = bill(lines);
    created["user_id"] = json!(user(order));
    created["address"] = address();
    created
}

/// Returns lines of two or three different products. Few products are in many orders, and many in few.
fn lines(order: u64, quantity: u64) -> Vec<Value> {
    let first = skewed(random(order, 2), PRODUCTS);
    let count = 2 + order % 2;
    let line = |index| {
        let product = (first + index * 37) % PRODUCTS;
        json!({
            "product_id": self::product(product), "name": format!("Product number {product}"),
            "quantity": quantity, "unit_price": 100 + product, "amount": (100 + product) * quantity,
        })
    };
    (0..count).map(line).collect()
}

fn bill(lines: &[Value]) -> Value {
    json!({"lines": lines, "total": total(lines), "payment": [{"method": "card", "amount": total(lines)}]})
}

fn payment(lines: &[Value]) -> Value {
    json!({"amount": total(lines), "methods": [{"method": "card", "amount": total(lines)}]})
}

fn total(lines: &[Value]) -> u64 {
    lines.iter().filter_map(|line| line["amount"].as_u64()).sum()
}

fn address() -> Value {
    json!({"region": "north", "line": "27 Quay Street, second floor"})
}

/// Returns one of the first `values` numbers, low ones more often than high ones: of 20,000 numbers, 0 is 0.7
/// % of all results.
pub(crate) fn skewed(random: u64, values: u64) -> u64 {
    let part = random as f64 / u64::MAX as f64;
    ((values as f64 * part * part) as u64).min(values - 1)
}

pub(crate) fn product(index: u64) -> String {
    format!("product-{index:04}")
}

/// Returns the user who placed an order.
pub(crate) fn user(order: u64) -> String {
    format!("user-{:05}", skewed(random(order, 1), USERS))
}

/// Returns a number that depends on both arguments alone (SplitMix64).
pub(crate) fn random(seed: u64, stream: u64) -> u64 {
    let mut z = seed.wrapping_mul(4).wrapping_add(stream).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
