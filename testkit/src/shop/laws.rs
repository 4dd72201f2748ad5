//! The laws of the shop. They hold whenever no saga runs, whatever was sent, rejected, killed or deployed
//! before.
//!
//! 1. For each product: registered + added − removed = available + reserved + shipped, none of them negative.
//! 2. A confirmed order has an authorized payment of exactly its total, a delivery that is not cancelled, and
//!    a reservation of exactly the quantity of each of its lines; once it has shipped, exactly that has been
//!    shipped.
//! 3. A cancelled or deleted order has no authorized payment, no live delivery and no reservation.
//! 4. Every accepted command took effect exactly once.
//!
//! A [`Shop`] is anything that can be read. [`check`] waits for its sagas, folds its log into a [`Ledger`]
//! without the host's help, and compares that with the views that clients get. A broken law is a panic that
//! names it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

/// Read access to a shop.
pub trait Shop {
    /// Returns the events after a position up to the current end of the log, oldest first, in the form of
    /// `GET /events`.
    fn events(&self, after: u64) -> impl Iterator<Item = Value>;
    /// Returns the same events and then each new one as it arrives, until the shop ends.
    fn follow(&self, after: u64) -> impl Iterator<Item = Value>;
    /// Returns the view that clients get of an aggregate, or null if the aggregate does not exist.
    fn view(&self, aggregate: &str, id: &str) -> Value;
}

/// The views that clients get, by kind and id of the aggregate; null for an aggregate that does not exist.
pub type Views = BTreeMap<(String, String), Value>;

/// Waits until no saga runs, then checks all laws. Panics if one is broken.
#[track_caller]
pub fn check(shop: &impl Shop) -> (Ledger, Views) {
    let ledger = until_quiet(shop);
    let views =
        ledger.aggregates().map(|(kind, id)| ((kind.clone(), id.clone()), shop.view(kind, id))).collect();
    ledger.check(&views);
    (ledger, views)
}

/// Waits until no saga runs. Returns the log folded up to that point.
pub fn until_quiet(shop: &impl Shop) -> Ledger {
    let mut ledger = Ledger::default();
    shop.events(0).for_each(|event| ledger.apply(&event));
    if ledger.running() > 0 {
        for event in shop.follow(ledger.position) {
            ledger.apply(&event);
            if ledger.running() == 0 {
                break;
            }
        }
    }
    ledger
}

/// The names of the events that start a saga.
const TRIGGERS: [&str; 4] =
    ["order-created", "order-update-requested", "order-delete-requested", "delivery-start-requested"];

/// The status of an aggregate before its first event.
const NOTHING: &str = "";

/// The transitions of all aggregates but products: kind, status before, event, status after. Any other
/// transition is an error, so an effect that occurs twice is found here.
const TRANSITIONS: [(&str, &str, &str, &str); 23] = [
    ("order", NOTHING, "order-created", "pending"),
    ("order", "pending", "order-confirmed", "confirmed"),
    ("order", "pending", "order-cancelled", "cancelled"),
    ("order", "confirmed", "order-update-requested", "updating"),
    ("order", "updating", "order-updated", "confirmed"),
    ("order", "updating", "order-update-reverted", "confirmed"),
    ("order", "confirmed", "order-delete-requested", "deleting"),
    ("order", "deleting", "order-deleted", "deleted"),
    ("order", "deleting", "order-delete-reverted", "confirmed"),
    ("payment", NOTHING, "payment-authorized", "authorized"),
    ("payment", "authorized", "payment-changed", "authorized"),
    ("payment", "authorized", "payment-cancelled", "cancelled"),
    ("payment", "cancelled", "payment-authorized", "authorized"),
    ("delivery", NOTHING, "delivery-scheduled", "preparing"),
    ("delivery", "preparing", "delivery-held", "held"),
    ("delivery", "held", "delivery-resumed", "preparing"),
    ("delivery", "preparing", "delivery-cancelled", "cancelled"),
    ("delivery", "cancelled", "delivery-scheduled", "preparing"),
    ("delivery", "preparing", "delivery-start-requested", "starting"),
    ("delivery", "starting", "delivery-start-refused", "preparing"),
    // The order could not be placed after all.
    ("delivery", "starting", "delivery-cancelled", "cancelled"),
    ("delivery", "starting", "delivery-started", "in-transit"),
    ("delivery", "in-transit", "delivery-completed", "delivered"),
];

/// The log, folded as simply as possible and without the host's code.
#[derive(Default)]
pub struct Ledger {
    /// The position of the last event applied.
    pub position: u64,
    products: BTreeMap<(String, String), Product>,
    /// The statuses of all aggregates but products, by kind and id.
    statuses: BTreeMap<(String, String), &'static str>,
    /// The triggers of the running sagas: stream and version.
    running: HashSet<(String, u64)>,
    /// The trigger of each saga, by the saga's id.
    triggers: HashMap<String, (String, u64)>,
    /// The payload of the entry that parked each parked saga, by the saga's id.
    parked: BTreeMap<String, String>,
    streams: HashMap<String, Stream>,
    /// The stream and the name of each command, by its id.
    commands: HashMap<String, (String, String)>,
    event_ids: HashSet<String>,
}

#[derive(Default)]
struct Product {
    /// The quantity registered and added, less the quantity removed.
    stock: i64,
    /// The quantities reserved, by order.
    reserved: BTreeMap<String, i64>,
    /// The quantities shipped, by order.
    shipped: BTreeMap<String, i64>,
}

#[derive(Default)]
struct Stream {
    version: u64,
    last_command: String,
}

impl Ledger {
    /// Applies the next event of the log. Panics if the event breaks a law.
    #[track_caller]
    pub fn apply(&mut self, event: &Value) {
        let (stream, name) = (text(event, "stream"), text(event, "name"));
        self.check_order_of_events(event, stream);
        let (kind, id) = stream.split_once('/').unwrap();
        match kind {
            "saga" => self.saga(id, name, &event["payload"]),
            "deployment" | "audit" | "token" => {}
            "product" => {
                let product = self.products.entry((kind.to_owned(), id.to_owned())).or_default();
                product.apply(id, name, &event["payload"]);
            }
            _ => self.transition(kind, id, name),
        }
        if TRIGGERS.contains(&name) {
            self.running.insert((stream.to_owned(), number(event, "version")));
        }
    }

    /// Returns the number of running sagas. A parked one is not running: it waits for an operator.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns the kind and the id of every aggregate in the log.
    pub fn aggregates(&self) -> impl Iterator<Item = &(String, String)> {
        self.products.keys().chain(self.statuses.keys())
    }

    /// Returns the statuses of all aggregates of a kind, by id.
    pub fn statuses(&self, kind: &str) -> BTreeMap<String, String> {
        let of_kind = self.statuses.iter().filter(|((of, _), _)| of == kind);
        of_kind.map(|((_, id), status)| (id.clone(), (*status).to_owned())).collect()
    }

    /// Checks all laws against the views of all aggregates. Panics if one is broken.
    #[track_caller]
    pub fn check(&self, views: &Views) {
        assert_eq!(self.running, HashSet::new(), "the sagas of these events do not end");
        assert_eq!(self.parked, BTreeMap::new(), "sagas are parked");
        for (place, product) in &self.products {
            product.check(&views[place]);
        }
        for (place, status) in &self.statuses {
            assert_eq!(views[place]["status"], *status, "the status of {place:?}");
        }
        for (place @ (kind, id), status) in &self.statuses {
            if kind == "order" {
                let payment = views.get(&("payment".to_owned(), id.clone()));
                self.check_order(id, status, &views[place], payment.unwrap_or(&Value::Null));
            }
        }
    }

    /// Checks law 4: no event twice, no gap in a stream, no command in two streams.
    #[track_caller]
    fn check_order_of_events(&mut self, event: &Value, name: &str) {
        let position = number(event, "position");
        assert!(position > self.position, "position {position} after {}", self.position);
        self.position = position;
        let id = text(event, "id");
        assert!(self.event_ids.insert(id.to_owned()), "the event {id} stands twice in the log");
        let stream = self.streams.entry(name.to_owned()).or_default();
        stream.version += 1;
        assert_eq!(event["version"], stream.version, "a gap in {name}");
        let (command_id, command) = (text(event, "command_id"), text(event, "command"));
        if stream.last_command != command_id {
            let place = (name.to_owned(), command.to_owned());
            let before = self.commands.insert(command_id.to_owned(), place);
            assert_eq!(before, None, "{command_id} took effect before {command} of {name} did with that id");
            command_id.clone_into(&mut stream.last_command);
        }
    }

    fn saga(&mut self, id: &str, name: &str, payload: &Value) {
        match name {
            "started" => {
                let trigger = &payload["trigger"];
                let trigger = (text(trigger, "stream").to_owned(), number(trigger, "version"));
                self.triggers.insert(id.to_owned(), trigger);
            }
            "completed" | "compensated" | "resolved" => {
                self.running.remove(&self.triggers[id]);
                self.parked.remove(id);
            }
            "parked" => {
                self.running.remove(&self.triggers[id]);
                self.parked.insert(id.to_owned(), payload.to_string());
            }
            "resumed" | "skipped" => {
                self.running.insert(self.triggers[id].clone());
                self.parked.remove(id);
            }
            _ => {}
        }
    }

    #[track_caller]
    fn transition(&mut self, kind: &str, id: &str, event: &str) {
        let status = self.statuses.entry((kind.to_owned(), id.to_owned())).or_insert(NOTHING);
        let transition = TRANSITIONS
            .iter()
            .find(|(of, from, by, _)| (*of, *from, *by) == (kind, *status, event))
            .unwrap_or_else(|| panic!("{event} happened to {kind}/{id}, which was {status:?}"));
        *status = transition.3;
    }

    /// Returns the status of one aggregate, or `None` if it has no event.
    pub fn status(&self, kind: &str, id: &str) -> Option<&'static str> {
        self.statuses.get(&(kind.to_owned(), id.to_owned())).copied()
    }

    /// Checks laws 2 and 3 for one order.
    #[track_caller]
    fn check_order(&self, id: &str, status: &str, order: &Value, paid: &Value) {
        let of = |taken: fn(&Product) -> &BTreeMap<String, i64>| -> BTreeMap<&str, i64> {
            let products = self.products.iter();
            products
                .filter_map(|((_, product), kept)| Some((product.as_str(), *taken(kept).get(id)?)))
                .collect()
        };
        let (reserved, shipped) = (of(|product| &product.reserved), of(|product| &product.shipped));
        let [payment, delivery] =
            ["payment", "delivery"].map(|kind| self.status(kind, id).unwrap_or(NOTHING));
        let none = BTreeMap::new();
        match (status, payment, delivery) {
            ("confirmed", "authorized", "preparing") => {
                check_payment(order, paid);
                assert_eq!((reserved, shipped), (lines(order), none), "law 2: {order}");
            }
            ("confirmed", "authorized", "in-transit" | "delivered") => {
                check_payment(order, paid);
                assert_eq!((reserved, shipped), (none, lines(order)), "law 2: {order}");
            }
            ("cancelled" | "deleted", NOTHING | "cancelled", NOTHING | "cancelled") => {
                assert_eq!((reserved, shipped), (none.clone(), none), "law 3: {order}");
            }
            _ => {
                panic!("laws 2 and 3: the payment is {payment:?} and the delivery is {delivery:?} of {order}")
            }
        }
    }
}

/// Returns the quantity of each product in an order.
fn lines(order: &Value) -> BTreeMap<&str, i64> {
    let lines = order["lines"].as_array().unwrap().iter();
    lines.map(|line| (text(line, "product_id"), signed(line, "quantity"))).collect()
}

/// Checks law 2 for the payment of a confirmed order.
#[track_caller]
fn check_payment(order: &Value, payment: &Value) {
    let sum = |parts: &Value, field| -> u64 {
        parts.as_array().unwrap().iter().map(|part| number(part, field)).sum()
    };
    assert_eq!(payment["amount"], order["total"], "law 2: {payment} of {order}");
    assert_eq!(payment["methods"], order["payment"], "law 2: {payment} of {order}");
    assert_eq!(sum(&payment["methods"], "amount"), number(order, "total"), "law 2: {payment} of {order}");
    assert_eq!(sum(&order["lines"], "amount"), number(order, "total"), "law 2: {order}");
}

impl Product {
    #[track_caller]
    fn apply(&mut self, id: &str, name: &str, payload: &Value) {
        match name {
            "product-registered" | "stock-added" => self.stock += signed(payload, "quantity"),
            "stock-removed" => self.stock -= signed(payload, "quantity"),
            _ => self.apply_to_order(text(payload, "order_id"), name, payload),
        }
        assert!(self.available() >= 0, "{name} oversold {id}: {}", self.available());
    }

    /// Applies an event that concerns one order.
    #[track_caller]
    fn apply_to_order(&mut self, order: &str, name: &str, payload: &Value) {
        let quantity = |field| Some(signed(payload, field));
        let Self { reserved, shipped, .. } = self;
        match name {
            "stock-reserved" => replace(reserved, order, None, quantity("quantity")),
            "reservation-changed" => replace(reserved, order, quantity("from"), quantity("to")),
            "stock-released" => replace(reserved, order, quantity("quantity"), None),
            "stock-shipped" => {
                replace(reserved, order, quantity("quantity"), None);
                replace(shipped, order, None, quantity("quantity"));
            }
            "stock-unshipped" => {
                replace(shipped, order, quantity("quantity"), None);
                replace(reserved, order, None, quantity("quantity"));
            }
            other => panic!("laws.rs does not know the event {other}"),
        }
    }

    fn available(&self) -> i64 {
        self.stock - self.reserved.values().sum::<i64>() - self.shipped.values().sum::<i64>()
    }

    /// Checks law 1: compares the view with the quantities of all orders.
    #[track_caller]
    fn check(&self, view: &Value) {
        let seen = ["available", "reserved", "shipped"].map(|field| signed(view, field));
        let counted = [self.available(), self.reserved.values().sum(), self.shipped.values().sum()];
        assert_eq!(seen, counted, "law 1: {view}");
    }
}

/// Replaces the quantity that an order has of a product. Panics if the event names another quantity before
/// it.
#[track_caller]
fn replace(taken: &mut BTreeMap<String, i64>, order: &str, from: Option<i64>, to: Option<i64>) {
    let before = match to {
        Some(to) => taken.insert(order.to_owned(), to),
        None => taken.remove(order),
    };
    assert_eq!(before, from, "the quantity of {order}, and the one that the event replaces");
}

#[track_caller]
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

#[track_caller]
fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {value}"))
}

fn signed(value: &Value, field: &str) -> i64 {
    i64::try_from(number(value, field)).unwrap()
}
