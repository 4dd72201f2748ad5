//! A screen in one call: an order with its payment, its delivery and its products, asked live.
//!
//! The order itself is read first, because it names the products to ask for; then all other services are
//! asked at once. A service that does not answer in time costs the screen its part and no more.

use std::collections::BTreeSet;
use std::vec::IntoIter;

use kontor_sdk::prelude::*;
use kontor_sdk::services::{self, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bill::{Line, Part};
use crate::order::{Address, Order, Status};

/// Time limit of each question: a user would rather see most of the screen than wait any longer.
const TIME_LIMIT_MS: u32 = 500;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Details {
    // Other texts are no ids, and have no order.
    #[schemars(regex(pattern = "^[A-Za-z0-9._:~-]{1,128}$"))]
    id: String,
}

/// An order, as its customer wants to see it. Amounts are in the smallest unit of the currency.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OrderDetails {
    id: String,
    user_id: String,
    status: Status,
    /// The reason why it was cancelled, or why the last change or deletion was not made; null otherwise.
    reason: Option<Rejection>,
    /// With the products' names of today, or of the day of the order if the inventory is unavailable.
    lines: Vec<Line>,
    total: u64,
    address: Address,
    /// Null if there is none, or if the payment service is unavailable.
    payment: Option<Payment>,
    /// Null if there is none, or if the delivery service is unavailable.
    delivery: Option<Delivery>,
    /// The services that have not answered in time: what they know is missing.
    unavailable: BTreeSet<&'static str>,
}

// Each service declares the part of others that it needs.

#[derive(Serialize, Deserialize, JsonSchema)]
struct Payment {
    status: String,
    amount: u64,
    methods: Vec<Part>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Delivery {
    status: String,
}

/// The order, as this service itself shows it.
#[derive(Deserialize)]
struct Ordered {
    user_id: String,
    status: Status,
    reason: Option<Rejection>,
    lines: Vec<Line>,
    total: u64,
    address: Address,
}

#[derive(Deserialize)]
struct Product {
    name: String,
}

impl Query for Details {
    const NAME: &str = "details";
    const DESCRIPTION: &str = "An order with its payment, its delivery and its products, as they are now.";
    type Answer = OrderDetails;

    fn answer(self) -> Result<OrderDetails, Error> {
        let Self { id } = self;
        let mut order: Ordered = services::query("order", Order::NAME, json!({ "id": id }))?;

        let products = order.lines.iter().map(|line| ask("inventory", "product", &line.product_id));
        let requests = [ask("payment", "payment", &id), ask("delivery", "delivery", &id)];
        let mut answers = Answers::of(requests.into_iter().chain(products));
        let payment = answers.next("payment");
        let delivery = answers.next("delivery");
        for line in &mut order.lines {
            if let Some(Product { name }) = answers.next("inventory") {
                line.name = name;
            }
        }

        let Ordered { user_id, status, reason, lines, total, address } = order;
        let unavailable = answers.unavailable;
        Ok(OrderDetails {
            id,
            user_id,
            status,
            reason,
            lines,
            total,
            address,
            payment,
            delivery,
            unavailable,
        })
    }
}

fn ask(service: &str, aggregate: &str, id: &str) -> Request {
    Request::new(service, aggregate, json!({ "id": id })).within_ms(TIME_LIMIT_MS)
}

/// The answers in the order of the requests, and the services without one.
struct Answers {
    answers: IntoIter<Result<Value, Error>>,
    unavailable: BTreeSet<&'static str>,
}

impl Answers {
    fn of(requests: impl Iterator<Item = Request>) -> Self {
        Self { answers: services::query_all(requests).into_iter(), unavailable: BTreeSet::new() }
    }

    /// Returns the next answer, which is that of `service`: `None` if it has nothing to show or is
    /// unavailable.
    fn next<T: DeserializeOwned>(&mut self, service: &'static str) -> Option<T> {
        match self.answers.next()?.map(serde_json::from_value) {
            Ok(Ok(answer)) => Some(answer),
            Err(Error::Rejected(_)) => None,
            Ok(Err(_)) | Err(Error::Fault(_)) => {
                self.unavailable.insert(service);
                None
            }
        }
    }
}
