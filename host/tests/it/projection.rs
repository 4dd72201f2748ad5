//! Read models and queries, with the inventory service of the shop. `cargo xtask build` builds its component.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kontor::aggregate::{Dispatch, DispatchDeps, DispatchLimits, StateCache};
use kontor::clock::SystemClock;
use kontor::deployed::{Components, Deployed, Registry, Store};
use kontor::log::{EmbeddedLog, EventLog, Snapshots};
use kontor::model::{
    Caller, Command, CommandId, Intent, Json, Origin, Position, Precondition, StreamId, Version,
};
use kontor::projection::{ProjectionDeps, Projections};
use kontor::query::{Answer, AtLeast, Queries, QueryDeps, QueryError, QueryLimits, Revision};
use kontor::runtime::{Ask, AskFailure, Component, HttpClient, Request, Runtime, RuntimeLimits};
use kontor_testkit::log::happened;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

/// Longer than anything takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(30);

/// The part of a host that outlives it: its directory, its log, and the compiled components.
struct Shop {
    dir: TempDir,
    log: Arc<dyn EventLog>,
    runtime: Runtime,
    components: [Component; 2],
}

/// The parts of a host that these tests need.
struct Host {
    projections: Arc<Projections>,
    queries: Queries,
    dispatch: Dispatch,
}

impl Shop {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(dir.path()).unwrap());
        // All tests share the compiled code.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let runtime = Runtime::new(target, RuntimeLimits::default(), Default::default()).unwrap();
        let load = async |file: &str| {
            let wasm = fs::read(target.join("..").join(file));
            runtime.load(wasm.expect("components must be built: cargo xtask build")).await.unwrap()
        };
        let components = [load("plugins/inventory.wasm").await, load("fixtures/unruly.wasm").await];
        Self { dir, log, runtime, components }
    }

    async fn host(&self) -> Host {
        self.host_with(QueryLimits::default()).await
    }

    async fn host_with(&self, limits: QueryLimits) -> Host {
        let (dir, log, clock) = (self.dir.path(), self.log.clone(), Arc::new(SystemClock));
        let registry = Arc::new(Registry::default());
        registry.replace(Deployed::new(self.components.clone()).unwrap());
        let snapshots = Snapshots::open(dir).unwrap();
        let states = Arc::new(StateCache::new(log.clone(), snapshots, registry.clone()));
        let store = Store::open(dir).unwrap();
        let past = Arc::new(Components::new(registry.clone(), self.runtime.clone(), store));
        let deps =
            ProjectionDeps { log: log.clone(), components: past, clock: clock.clone(), max_bytes: 1 << 30 };
        let projections = Arc::new(Projections::start(dir, deps).await.unwrap());
        let deps = QueryDeps {
            states: states.clone(),
            registry: registry.clone(),
            projections: projections.clone(),
            log: log.clone(),
            clock: clock.clone(),
        };
        let queries = Queries::new(deps, limits);
        let (ask, http) = (Arc::new(queries.clone()), Arc::new(HttpClient::default()));
        let deps = DispatchDeps { log, states, registry, ask, http, clock };
        let dispatch = Dispatch::new(deps, DispatchLimits::default());
        Host { projections, queries, dispatch }
    }

    fn read_database(&self) -> PathBuf {
        self.dir.path().join("read/inventory-v1.db")
    }

    /// Appends events that no command has made.
    async fn record(&self, stream: &str, expected: u64, events: &[(&str, Value)]) -> Position {
        let append = happened(StreamId::parse(stream).unwrap(), Version::new(expected), events);
        self.log.append(vec![append]).await.unwrap().position
    }
}

impl Host {
    async fn submit(&self, product: &str, command: &str, payload: Value) -> Position {
        let command = Command {
            id: CommandId::new(),
            repeatable: false,
            keyed: false,
            stream: StreamId::new("product", product).unwrap(),
            name: command.into(),
            payload: Json::of(&payload).unwrap(),
            intent: Intent::Decide,
            precondition: Precondition::default(),
            origin: Origin {
                caller: Caller::named("test"),
                correlation_id: "test".into(),
                causation_id: None,
            },
            journal: None,
        };
        self.dispatch.submit(command).await.unwrap().position
    }

    async fn register(&self, product: &str) -> Position {
        self.submit(product, "register", json!({"name": product, "unit_price": 5, "quantity": 10})).await
    }

    async fn ask(&self, query: &str, arguments: Value, at_least: Position) -> Result<Answer, QueryError> {
        let inquiry = self.queries.inquiry(Caller::unauthenticated_operator(), AtLeast::position(at_least));
        inquiry.answer("inventory", query, arguments).await
    }

    /// Returns each product with its stock, from the read model at `at_least` or later.
    async fn stock(&self, at_least: Position) -> Vec<(String, u64)> {
        let answer = self.ask("products", json!({}), at_least).await.unwrap();
        assert!(answer.position >= at_least, "{} is before {at_least}", answer.position);
        let list: Value = answer.body.read().unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| (item["id"].as_str().unwrap().to_owned(), item["available"].as_u64().unwrap()))
            .collect()
    }

    async fn stop(self) {
        self.dispatch.close().await;
        self.projections.close().await;
    }
}

fn stock_of(products: &[(&str, u64)]) -> Vec<(String, u64)> {
    products.iter().map(|(id, stock)| ((*id).to_owned(), *stock)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_what_it_has_written() {
    let shop = Shop::open().await;
    let host = shop.host().await;
    host.register("desk").await;
    let written = host.register("chair").await;
    assert_eq!(host.stock(written).await, stock_of(&[("chair", 10), ("desk", 10)]));
    let written = host.submit("chair", "remove-stock", json!({"quantity": 3})).await;
    assert_eq!(host.stock(written).await, stock_of(&[("chair", 7), ("desk", 10)]));

    let chair = host.ask("product", json!({"id": "chair"}), written).await.unwrap();
    assert!(
        matches!(chair.revision, Some(Revision::View { version, .. }) if version.get() == 2),
        "{:?}",
        chair.revision
    );
    assert_eq!(chair.position, written);
    assert_eq!(chair.body.read::<Value>().unwrap()["available"], 7);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_without_an_answer_says_why() {
    let shop = Shop::open().await;
    let limits = QueryLimits { catch_up: Duration::from_millis(10), ..QueryLimits::default() };
    let host = shop.host_with(limits).await;
    let written = host.register("desk").await;
    host.projections.wait("inventory", written, sleep(LONG)).await.unwrap();

    let table = [
        ("product", json!({"id": "chair"}), "not-found: There is no product with the id chair."),
        ("product", json!({"id": "a/b"}), "the id cannot be used"),
        ("product", json!({"name": "desk"}), "the arguments do not follow the schema of the query"),
        ("products", json!({"color": "red"}), "the arguments do not follow the schema of the query"),
        ("orders", json!({}), "there is no query orders of inventory"),
    ];
    for (query, arguments, expected) in table {
        let error = host.ask(query, arguments, Position::START).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let ahead = host.ask("products", json!({}), written.next()).await.unwrap_err();
    assert!(matches!(ahead, QueryError::Ahead { reached, .. } if reached == written), "{ahead}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_ask_through_the_same_door() {
    let shop = Shop::open().await;
    let host = shop.host().await;
    host.register("desk").await;
    let ask = async |service: &str, id: &str, depth| {
        let request = Request {
            service: service.to_owned(),
            query: "product".to_owned(),
            arguments: Json::of(&json!({ "id": id })).unwrap(),
            time_limit: None,
        };
        match Ask::ask(&host.queries, &Caller::default(), request, depth).await {
            Ok(view) => view.read::<Value>().unwrap()["name"].to_string(),
            Err(AskFailure::Rejected(rejection)) => rejection.code,
            Err(AskFailure::Unavailable(reason)) => reason,
        }
    };
    assert_eq!(ask("inventory", "desk", 1).await, "\"desk\"");
    assert_eq!(ask("inventory", "chair", 1).await, "not-found");
    assert_eq!(ask("warehouse", "desk", 1).await, "there is no service warehouse");
    assert_eq!(ask("inventory", "desk", 4).await, "services ask each other more than 4 calls deep");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_answers_is_waited_for_as_long_as_the_asking_one_says() {
    let shop = Shop::open().await;
    let host = shop.host().await;
    let request = Request {
        service: "unruly".to_owned(),
        query: "spin".to_owned(),
        arguments: Json::empty_object(),
        time_limit: Some(Duration::from_millis(30)),
    };
    match Ask::ask(&host.queries, &Caller::default(), request, 1).await {
        Err(AskFailure::Unavailable(reason)) => {
            assert_eq!(reason, "unruly has not answered within 30ms");
        }
        other => panic!("{other:?}"),
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_counts_once_however_often_the_projection_is_broken_off() {
    const ROUNDS: u64 = 8;
    const EVENTS: u64 = 50;
    let shop = Shop::open().await;
    let host = shop.host().await;
    host.register("desk").await;
    host.stop().await;
    let mut last = Position::START;
    for _ in 0..ROUNDS {
        let host = shop.host().await;
        for _ in 0..EVENTS {
            last = host.submit("desk", "add-stock", json!({"quantity": 1})).await;
        }
        // Somewhere in the middle of the events.
        host.stop().await;
    }
    let host = shop.host().await;
    assert_eq!(host.stock(last).await, stock_of(&[("desk", 10 + ROUNDS * EVENTS)]));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_no_interest_move_the_position() {
    let shop = Shop::open().await;
    let host = shop.host().await;
    let other = shop.record("parcel/1", 0, &[("parcel-sent", json!({})), ("parcel-lost", json!({}))]).await;
    assert_eq!(host.projections.wait("inventory", other, sleep(LONG)).await, Ok(other));
    assert_eq!(host.stock(other).await, []);
    assert_eq!(host.projections.position("parcels"), None);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_parks_its_stream_and_no_other() {
    let shop = Shop::open().await;
    let registered = |name: &str| json!({"name": name, "unit_price": 5, "quantity": 10});
    shop.record("product/desk", 0, &[("product-registered", registered("desk"))]).await;
    let poison = shop.record("product/bad", 0, &[("product-registered", json!({"name": 7}))]).await;
    shop.record("product/bad", 1, &[("stock-added", json!({"quantity": 1}))]).await;
    shop.record("product/desk", 1, &[("stock-added", json!({"quantity": 1}))]).await;

    // This host projects all of them as one batch.
    let host = shop.host().await;
    let last = *shop.log.head().borrow();
    assert_eq!(host.stock(last).await, stock_of(&[("desk", 11)]));
    shop.record("product/bad", 2, &[("stock-added", json!({"quantity": 1}))]).await;
    let last = shop.record("product/desk", 2, &[("stock-added", json!({"quantity": 1}))]).await;
    assert_eq!(host.stock(last).await, stock_of(&[("desk", 12)]));
    host.stop().await;

    // It stays parked after a restart.
    let host = shop.host().await;
    let last = shop.record("product/bad", 3, &[("stock-added", json!({"quantity": 1}))]).await;
    assert_eq!(host.stock(last).await, stock_of(&[("desk", 12)]));
    host.stop().await;
    let parked = Connection::open(shop.read_database())
        .unwrap()
        .query_row("SELECT stream, position, skipped FROM kontor_parked", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Position>(1)?, row.get::<_, u64>(2)?))
        })
        .unwrap();
    assert_eq!(parked, ("product/bad".to_owned(), poison, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_database_that_cannot_be_read_is_rebuilt() {
    let shop = Shop::open().await;
    let host = shop.host().await;
    let last = host.register("desk").await;
    host.stock(last).await;
    host.stop().await;

    fs::write(shop.read_database(), "not a database ".repeat(1_000)).unwrap();
    let host = shop.host().await;
    assert_eq!(host.stock(last).await, stock_of(&[("desk", 10)]));
    host.stop().await;
}

/// The host's own tables are in the first pages and the service's after them, so the damage is found only
/// when it is read.
#[tokio::test(flavor = "multi_thread")]
async fn damage_found_on_the_way_parks_nothing_and_the_database_is_rebuilt() {
    let shop = Shop::open().await;
    let host = shop.host().await;
    let last = host.register("desk").await;
    host.stock(last).await;
    host.stop().await;

    let file = File::options().write(true).open(shop.read_database()).unwrap();
    let root = Connection::open(shop.read_database())
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'products'", [], |row| {
            row.get::<_, u64>(0)
        })
        .unwrap();
    file.write_all_at(&[0xff; 4_096], (root - 1) * 4_096).unwrap();

    let host = shop.host().await;
    let refused = host.ask("products", json!({}), last).await.unwrap_err();
    assert!(matches!(refused, QueryError::ReadModel(_)), "{refused}");
    let last = host.register("chair").await;
    assert_eq!(host.stock(last).await, stock_of(&[("chair", 10), ("desk", 10)]));
    host.stop().await;
}
