//! Events that were accepted can always be folded, however large they are together.

use kontor::log::{EmbeddedLog, EventLog as _};
use kontor::model::{StreamId, Version};
use kontor_testkit::log::happened;
use serde_json::json;

use crate::common::deploy::inventory;

/// The largest event that a component may emit is a little larger; all of them are more than an instance's
/// memory.
const BYTES: usize = 1_000_000;
const EVENTS: u64 = 90;

#[test]
fn an_aggregate_whose_events_are_larger_than_an_instance_is_read_after_a_restart() {
    let (site, _plugins) = inventory();
    assert!(site.start().stop().success());
    let log = EmbeddedLog::open(&site.data()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let name = "x".repeat(BYTES);
    for version in 0..EVENTS {
        let registered = json!({"name": name, "unit_price": 5, "quantity": 10});
        let stream = StreamId::new("product", "large").unwrap();
        let append = happened(stream, Version::new(version), &[("product-registered", registered)]);
        runtime.block_on(log.append(vec![append])).unwrap();
    }
    drop(log);
    let mut host = site.start();
    assert_eq!(host.stock("large"), (10, 0));
    host.post("/products/large/add-stock", &[], &json!({"quantity": 1})).ok();
    host.kill();
    // Now there is a snapshot, too.
    host = site.start();
    assert_eq!(host.stock("large"), (11, 0));
}
