//! That the drill of a saga makes all its runs, and that one in which a law is broken fails it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kontor_testkit::host::Host;
use kontor_testkit::sagas::Drill;
use serde_json::json;

use crate::beasts::{beast, beasts, waits};

/// Drills the saga `leap`: its pivot has a beast wait in the air, and then two more on the ground.
fn drill(law: impl Fn(&Host) + Sync) -> usize {
    let tame = beasts(&json!({"tame": true}));
    Drill::new(&tame).when(beast("wolf", "leap", json!({}))).then(law)
}

/// The effects of the pivot and of the two steps after it.
fn effects(host: &Host) -> [u64; 3] {
    ["wolf-air", "wolf", "wolf-ground"].map(|id| waits(host, id))
}

#[test]
fn every_mishap_comes_to_every_step_and_every_undo() {
    let runs = drill(|host| assert!([[0; 3], [1; 3]].contains(&effects(host))));
    // Two for the command that starts it, seven for each of three steps, seven for the one undo there is.
    assert_eq!(runs, 2 + 3 * 7 + 7);
}

#[test]
fn a_law_that_is_broken_in_one_run_fails_the_drill() {
    for broken in [[0; 3], [1; 3]] {
        let drilled = catch_unwind(AssertUnwindSafe(|| drill(|host| assert_ne!(effects(host), broken))));
        assert!(drilled.is_err(), "{broken:?}");
    }
}
