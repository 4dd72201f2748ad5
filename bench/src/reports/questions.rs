//! Questions to the report service, by the host's own code for queries, without HTTP.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use kontor::aggregate::StateCache;
use kontor::clock::SystemClock;
use kontor::deployed::{Components, Deployed, Registry, Store};
use kontor::log::{EmbeddedLog, EventLog, Snapshots};
use kontor::model::Caller;
use kontor::projection::{ProjectionDeps, Projections};
use kontor::query::{Queries, QueryDeps, QueryLimits};
use kontor::runtime::{Component, Runtime};
use serde::Serialize;
use serde_json::{Value, json};

use crate::latencies::Latencies;
use crate::orders::{PRODUCTS, Shop, product, random, skewed, user};

/// The figures of one kind of question.
#[derive(Serialize)]
pub(super) struct Figures {
    question: &'static str,
    p50_us: u64,
    p99_us: u64,
    /// The mean number of rows in an answer.
    rows: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.p50_us as f64 / 1e3, self.p99_us as f64 / 1e3);
        write!(f, "{:42}  {p50:6.2}  {p99:6.2}  {:4.0}", self.question, self.rows)
    }
}

/// Asks each kind of question `times` times, each time with other arguments.
pub(super) async fn ask_all(
    data: &Path,
    (runtime, component): (Runtime, Component),
    shop: &Shop,
    times: usize,
) -> anyhow::Result<Vec<Figures>> {
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data)?);
    let registry = Arc::new(Registry::default());
    registry.replace(Deployed::new([component]).map_err(|error| anyhow!(error))?);
    let states = Arc::new(StateCache::new(log.clone(), Snapshots::open(data)?, registry.clone()));
    let clock = Arc::new(SystemClock);
    let components = Arc::new(Components::new(registry.clone(), runtime, Store::open(data)?));
    let deps = ProjectionDeps { log: log.clone(), components, clock: clock.clone(), max_bytes: 1 << 40 };
    let projections = Arc::new(Projections::start(data, deps).await?);
    let deps = QueryDeps { states, registry, projections: projections.clone(), log, clock };
    let queries = Queries::new(deps, QueryLimits::default());

    let mut figures = Vec::new();
    for (question, query, arguments) in QUESTIONS {
        let (mut latencies, mut rows) = (Latencies::default(), 0);
        for time in 0..times as u64 {
            let arguments = arguments(&About { shop, random: random(time, 3) });
            let started = Instant::now();
            let inquiry = queries.inquiry_now(Caller::unauthenticated_operator());
            let answer = inquiry.answer("report", query, arguments).await.context(*question)?;
            latencies.add(started.elapsed());
            let answer: Value = answer.body.read()?;
            rows += answer["items"].as_array().map_or(1, Vec::len);
        }
        let [p50_us, p99_us] = [0.5, 0.99].map(|share| latencies.quantile_us(share));
        figures.push(Figures { question, p50_us, p99_us, rows: rows as f64 / times as f64 });
    }
    projections.close().await;
    Ok(figures)
}

/// The subject of one question.
struct About<'a> {
    shop: &'a Shop,
    random: u64,
}

impl About<'_> {
    fn order(&self) -> u64 {
        self.random % self.shop.orders
    }

    fn id(&self) -> String {
        self.shop.id(self.order())
    }

    /// Returns a moment of the year.
    fn time_ms(&self) -> u64 {
        self.shop.time_ms(self.order())
    }

    fn user(&self) -> String {
        user(self.order())
    }

    /// Returns a product, popular ones more often.
    fn product(&self) -> String {
        product(skewed(self.random, PRODUCTS))
    }
}

type Question = (&'static str, &'static str, fn(&About<'_>) -> Value);

const QUESTIONS: &[Question] = &[
    ("one order", "order", |about| json!({"id": about.id()})),
    ("the newest orders", "orders", |_| json!({})),
    ("orders before a time", "orders", |about| json!({"to": about.time_ms()})),
    ("of a user", "orders", |about| json!({"user_id": about.user()})),
    ("of the user with most orders", "orders", |_| json!({"user_id": "user-00000"})),
    ("confirmed, before a time", "orders", |about| json!({"status": "confirmed", "to": about.time_ms()})),
    ("pending", "orders", |_| json!({"status": "pending"})),
    ("with a product", "orders", |about| json!({"product_id": about.product()})),
    ("with a product, in one day", "orders", |about| {
        let time = about.time_ms();
        json!({"product_id": about.product(), "from": time, "to": time + 86_400_000})
    }),
    (
        "with a product, deleted",
        "orders",
        |about| json!({"product_id": about.product(), "status": "deleted"}),
    ),
    (
        "with a product, pending",
        "orders",
        |about| json!({"product_id": about.product(), "status": "pending"}),
    ),
    ("of a user, deleted", "orders", |about| json!({"user_id": about.user(), "status": "deleted"})),
    (
        "of the user with most orders, pending",
        "orders",
        |_| json!({"user_id": "user-00000", "status": "pending"}),
    ),
    (
        "of a user, with a product",
        "orders",
        |about| json!({"user_id": about.user(), "product_id": about.product()}),
    ),
    (
        "of a user, with a product, confirmed",
        "orders",
        |about| json!({"user_id": about.user(), "product_id": about.product(), "status": "confirmed"}),
    ),
    ("200 orders before a time", "orders", |about| json!({"to": about.time_ms(), "limit": 200})),
    ("sales by product", "sales", |about| json!({"by": "product", "after": about.product()})),
    (
        "sales by product, of one month",
        "sales",
        |about| json!({"by": "product", "after": about.product(), "from": "2024-05-01", "to": "2024-06-01"}),
    ),
    ("sales by product, of no day", "sales", |_| json!({"by": "product", "from": "2030-01-01"})),
    ("sales by day", "sales", |_| json!({"by": "day"})),
];
