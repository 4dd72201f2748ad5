//! The drill of a saga: it makes all its runs, and fails if a law is broken in one of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kontor_testkit::host::Host;
use kontor_testkit::sagas::Drill;
use serde_json::json;

use crate::beasts::{beast, beasts, waits};

/// Drills the saga `leap`: its pivot makes a beast wait in the air, and the two steps after it make two wait
/// on the deps.
fn drill(law: impl Fn(&Host) + Sync) -> usize {
    let tame = beasts(&json!({"tame": true}));
    Drill::new(&tame).when(beast("wolf", "leap", json!({}))).then(law)
}

/// Returns the effects of the pivot and of the two steps after it.
fn effects(host: &Host) -> [u64; 3] {
    ["wolf-air", "wolf", "wolf-ground"].map(|id| waits(host, id))
}

#[test]
fn every_mishap_comes_to_every_step_and_every_undo() {
    let runs = drill(|host| assert!([[0; 3], [1; 3]].contains(&effects(host))));
    // Two for the command that starts the saga, which has no compensation, and seven for each of three steps.
    assert_eq!(runs, 2 + 3 * 7);
}

#[test]
fn a_law_that_is_broken_in_one_run_fails_the_drill() {
    for broken in [[0; 3], [1; 3]] {
        let drilled = catch_unwind(AssertUnwindSafe(|| drill(|host| assert_ne!(effects(host), broken))));
        assert!(drilled.is_err(), "{broken:?}");
    }
}
