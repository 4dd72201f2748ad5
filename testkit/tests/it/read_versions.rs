//! A new version of a read model: built beside the current one, and swapped in once it has caught up.

use std::fs;
use std::path::Path;

use kontor::log::{Append, EmbeddedLog, EventLog as _};
use kontor::model::{Digest, Position, StreamId, Version};
use kontor::query::Revision;
use kontor_testkit::host::{Host, Services, Site};
use kontor_testkit::log::happened;
use serde_json::{Value, json};

/// So many that queries arrive while the read model is being built.
const ORDERS: usize = 3_000;

/// Returns the report service, or its next version with another read model.
fn report(file: &str) -> Services {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let wasm = fs::read(target.join(file)).expect("components must be built: cargo xtask build");
    Services::of(vec![wasm], &json!({}), 1)
}

fn today() -> Services {
    report("plugins/report.wasm")
}

fn next() -> Services {
    report("fixtures/next-report.wasm")
}

fn digest(services: &Services) -> Digest {
    services.digests()[0]
}

/// Returns a site with some orders in its log.
fn site() -> Site {
    let site = Site::new();
    let log = EmbeddedLog::open(site.data()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let appends = (0..ORDERS).map(|number| log.append(vec![order(&format!("order-{number}"))]));
    runtime.block_on(futures::future::try_join_all(appends)).unwrap();
    site
}

fn order(id: &str) -> Append {
    let payload = json!({
        "user_id": "ada",
        "lines": [{"product_id": "tea", "name": "Tea", "quantity": 1, "unit_price": 5, "amount": 5}],
        "payment": [{"method": "card", "share": "1"}],
        "total": 5,
        "address": {"region": "north", "line": "1 Quay Street"},
    });
    let stream = StreamId::new("order", id).unwrap();
    happened(stream, Version::START, &[("order-created", payload), ("order-confirmed", json!({}))])
}

/// Returns the number of orders in the report, the component that counted them, and the position of the
/// answer.
#[track_caller]
fn count(host: &Host, at_least: Position) -> (u64, Digest, Position) {
    let answer = host.ask("report", "sales", &json!({"by": "day"}), at_least).expect("an answer");
    let Some(Revision::ReadModel { component, .. }) = answer.revision else {
        panic!("not from a read model: {answer:?}")
    };
    let body: Value = answer.body.read().unwrap();
    (body["items"][0]["orders"].as_u64().unwrap_or(0), component, answer.position)
}

/// Returns the position of the last event.
fn end(host: &Host) -> Position {
    host.events().last().unwrap().position
}

/// Checks that a component has counted all orders.
#[track_caller]
fn complete(host: &Host, services: &Services) {
    assert_eq!(count(host, end(host)), (ORDERS as u64, digest(services), end(host)));
}

/// Queries until the component `to` answers. Every answer before must come from `from`, and none may go back.
#[track_caller]
fn asked_until(host: &Host, from: &Services, to: &Services) {
    let (mut before, first, mut position) = count(host, Position::START);
    assert_eq!(first, digest(from), "the new version cannot be built yet");
    loop {
        let (orders, component, reflected) = count(host, Position::START);
        assert!(orders >= before && reflected >= position, "{orders} orders after {before}");
        (before, position) = (orders, reflected);
        if component == digest(to) {
            return;
        }
        assert_eq!(component, digest(from));
    }
}

/// Returns the names of the read databases.
fn databases(site: &Site) -> Vec<String> {
    let files = fs::read_dir(site.data().join("read")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".db")).collect();
    names.sort();
    names
}

#[test]
fn queries_are_answered_as_before_until_the_new_version_is_built() {
    let (site, today, next) = (site(), today(), next());
    let host = site.start(&today);
    complete(&host, &today);
    let version = host.read_model("report").version;
    assert_eq!(databases(&site), [format!("report-v{version}.db")]);

    host.deploy(&next);
    asked_until(&host, &today, &next);
    let built = host.read_model("report");
    assert_eq!((built.version, built.position, built.building), (version + 1, end(&host), None));
    // The previous version is kept for a rollback.
    assert_eq!(databases(&site), [version, version + 1].map(|version| format!("report-v{version}.db")));
}

#[test]
fn a_version_that_is_rolled_back_goes_on_where_it_was() {
    let (site, today, next) = (site(), today(), next());
    let host = site.start(&today);
    complete(&host, &today);
    host.deploy(&next);
    asked_until(&host, &today, &next);
    host.deploy(&today);
    while count(&host, end(&host)).1 != digest(&today) {}
    complete(&host, &today);
    assert_eq!(databases(&site).len(), 2);
}

#[test]
fn a_version_that_was_being_built_is_built_by_the_next_host() {
    let (site, today, next) = (site(), today(), next());
    let host = site.start(&today);
    complete(&host, &today);
    host.deploy(&next);
    host.kill();
    let host = site.start(&next);
    asked_until(&host, &today, &next);
    complete(&host, &next);
}

#[test]
fn a_version_that_is_taken_back_while_it_is_built_leaves_nothing_behind() {
    let (site, today, next) = (site(), today(), next());
    let host = site.start(&today);
    complete(&host, &today);
    host.deploy(&next);
    host.deploy(&today);
    // A redrive is answered by the task that fills the read model, which by then has seen the deployment.
    host.redrive("report");
    assert_eq!(host.read_model("report").building, None);
    complete(&host, &today);
    assert_eq!(databases(&site).len(), 1);
}

#[test]
fn without_the_component_before_queries_wait_for_the_new_version() {
    let (site, today, next) = (site(), today(), next());
    let host = site.start(&today);
    complete(&host, &today);
    host.stop();
    fs::remove_file(site.data().join(format!("components/{}.wasm", digest(&today)))).unwrap();
    let host = site.start(&next);
    complete(&host, &next);
    assert_eq!(databases(&site).len(), 1);
}
