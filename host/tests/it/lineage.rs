//! States belong to the components that folded them: a version that is taken back leaves none behind.

use serde_json::json;

use crate::common::Host;
use crate::common::deploy::{inventory, next_inventory};

/// More events than stand between two snapshots.
const REMOVALS: usize = 110;
const PIECES: u64 = 1_000;

/// Registers products, one of which has a snapshot.
fn stock(host: &Host) {
    for product in ["tea", "pot"] {
        host.register(product, 5, PIECES);
    }
    remove(host, "tea", REMOVALS);
    remove(host, "pot", 1);
}

/// Removes a piece of a product so many times.
fn remove(host: &Host, product: &str, times: usize) {
    for _ in 0..times {
        host.post(&format!("/products/{product}/remove-stock"), &[], &json!({"quantity": 1})).ok();
    }
}

/// Checks the views of both products, and that decisions are made on the same states.
#[track_caller]
fn check(host: &Host, [tea, pot]: [u64; 2], when: &str) {
    assert_eq!([host.stock("tea").0, host.stock("pot").0], [tea, pot], "{when}");
    for (product, available) in [("tea", tea), ("pot", pot)] {
        let too_many = json!({"quantity": available + 1});
        let refused = host.post(&format!("/products/{product}/remove-stock"), &[], &too_many);
        let problem = refused.problem(409, "insufficient-stock");
        assert_eq!(problem["details"]["available"], available, "{when}");
    }
}

#[test]
fn a_version_that_is_taken_back_leaves_no_state_to_the_next_one() {
    let (site, _plugins) = inventory();
    let mut host = site.start();
    stock(&host);
    host.deploy(&next_inventory("miscounting"), "").ok();
    remove(&host, "tea", REMOVALS);
    remove(&host, "pot", 1);
    assert_eq!(host.stock("pot").0, PIECES - 4, "it takes all stock away twice");
    host.roll_back("inventory", &json!({})).ok();

    // The same state version as the one that was taken back.
    host.deploy(&next_inventory("next"), "").ok();
    let right = [PIECES - 2 * REMOVALS as u64, PIECES - 2];
    check(&host, right, "when the corrected version runs");
    host.kill();
    host = site.start();
    check(&host, right, "after a restart");
}

#[test]
fn a_state_from_before_an_undeployment_is_not_taken_on() {
    let (site, _plugins) = inventory();
    let mut host = site.start();
    stock(&host);
    let right = [PIECES - REMOVALS as u64, PIECES - 1];
    check(&host, right, "before");
    host.undeploy("inventory", "").ok();
    // Another state under the same version: nothing runs that it could be compared with.
    host.deploy(&next_inventory("reshaped"), "").ok();
    check(&host, right, "with another state");
    host.kill();
    host = site.start();
    check(&host, right, "after a restart");
}
