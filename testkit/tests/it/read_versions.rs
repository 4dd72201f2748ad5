//! A new version of a read model: built beside the one that queries ask, and put in its place when it is as far.

use std::fs;
use std::path::Path;

use kontor::log::{Append, EmbeddedLog, EventLog as _};
use kontor::model::{Digest, Position, StreamId};
use kontor::query::Revision;
use kontor_testkit::host::{Host, Services, Site};
use kontor_testkit::log::happened;
use serde_json::{Value, json};

/// Enough that a read model is not built between two questions.
const ORDERS: usize = 3_000;

/// The report service of today, or the next one, whose read model is of another version.
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

/// A site with some orders in its log.
fn site() -> (Site, Position) {
    let site = Site::new();
    let log = EmbeddedLog::open(site.data()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let appends = (0..ORDERS).map(|number| log.append(vec![order(&format!("order-{number}"))]));
    let appended = runtime.block_on(futures::future::try_join_all(appends)).unwrap();
    (site, appended.last().unwrap().position)
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
    happened(stream, 0, &[("order-created", payload), ("order-confirmed", json!({}))])
}

/// How many orders the report counts, the component that has counted them, and the position that this reflects.
#[track_caller]
fn count(host: &Host, at_least: Position) -> (u64, Digest, Position) {
    let answer = host.ask("report", "sales", &json!({"by": "day"}), at_least).expect("an answer");
    let Some(Revision::ReadModel { component, .. }) = answer.revision else {
        panic!("not from a read model: {answer:?}")
    };
    let body: Value = answer.body.read().unwrap();
    (body["items"][0]["orders"].as_u64().unwrap_or(0), component, answer.position)
}

/// Asks until it is that component which answers. All answers before must be the other's, and none goes back.
#[track_caller]
fn asked_until(host: &Host, from: &Services, to: &Services) {
    let (mut before, first, mut position) = count(host, 0);
    assert_eq!(first, digest(from), "the new version cannot be built yet");
    loop {
        let (orders, component, reflected) = count(host, 0);
        assert!(orders >= before && reflected >= position, "{orders} orders after {before}");
        (before, position) = (orders, reflected);
        if component == digest(to) {
            return;
        }
        assert_eq!(component, digest(from));
    }
}

/// The read databases that there are.
fn databases(site: &Site) -> Vec<String> {
    let files = fs::read_dir(site.data().join("read")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".db")).collect();
    names.sort();
    names
}

#[test]
fn queries_are_answered_as_before_until_the_new_version_is_built() {
    let ((site, last), today, next) = (site(), today(), next());
    let host = site.start(&today);
    assert_eq!(count(&host, last), (ORDERS as u64, digest(&today), last));
    let version = host.read_model("report").version;
    assert_eq!(databases(&site), [format!("report-v{version}.db")]);

    host.deploy(&next);
    asked_until(&host, &today, &next);
    let built = host.read_model("report");
    assert_eq!((built.version, built.position, built.building), (version + 1, last, None));
    // The version before is kept, for a rollback.
    assert_eq!(databases(&site), [version, version + 1].map(|version| format!("report-v{version}.db")));
}

#[test]
fn a_version_that_is_rolled_back_goes_on_where_it_was() {
    let ((site, last), today, next) = (site(), today(), next());
    let host = site.start(&today);
    count(&host, last);
    host.deploy(&next);
    asked_until(&host, &today, &next);
    host.deploy(&today);
    while count(&host, last).1 != digest(&today) {}
    assert_eq!(count(&host, last), (ORDERS as u64, digest(&today), last));
    assert_eq!(databases(&site).len(), 2);
}

#[test]
fn a_version_that_was_being_built_is_built_by_the_next_host() {
    let ((site, last), today, next) = (site(), today(), next());
    let host = site.start(&today);
    count(&host, last);
    host.deploy(&next);
    host.kill();
    let host = site.start(&next);
    asked_until(&host, &today, &next);
    assert_eq!(count(&host, last), (ORDERS as u64, digest(&next), last));
}

#[test]
fn a_version_that_is_taken_back_while_it_is_built_leaves_nothing_behind() {
    let ((site, last), today, next) = (site(), today(), next());
    let host = site.start(&today);
    count(&host, last);
    host.deploy(&next);
    host.deploy(&today);
    // Whoever fills the read model has looked at what is deployed when it has done what was asked of it afterwards.
    host.redrive("report");
    assert_eq!(host.read_model("report").building, None);
    assert_eq!(count(&host, last), (ORDERS as u64, digest(&today), last));
    assert_eq!(databases(&site).len(), 1);
}

#[test]
fn without_the_component_before_queries_wait_for_the_new_version() {
    let ((site, last), today, next) = (site(), today(), next());
    let host = site.start(&today);
    count(&host, last);
    host.stop();
    fs::remove_file(site.data().join(format!("components/{}.wasm", digest(&today)))).unwrap();
    let host = site.start(&next);
    assert_eq!(count(&host, last), (ORDERS as u64, digest(&next), last));
    assert_eq!(databases(&site).len(), 1);
}
