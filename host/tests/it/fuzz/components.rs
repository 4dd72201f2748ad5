use proptest::prelude::*;
use serde_json::Value;

use super::near::near;
use super::{Outcomes, run};
use crate::common::Site;
use crate::common::deploy::{fixture, plugin};
use crate::common::shop::configuration;

/// One component is read and mostly compiled, which takes as long as thousands of requests.
const COST: u32 = 2_000;
/// Parts of a component: opcodes, lengths, names of interfaces.
const WORDS: &[&str] = &[
    "\0asm\u{d}\0\u{1}\0",
    "\0asm\u{1}\0\0\0",
    "\u{0}",
    "\u{b}",
    "\u{10}",
    "\u{7f}",
    "\u{20}\0",
    "\u{3}@",
    "kontor:service/steps@0.2.0",
    "wasi:sockets/tcp@0.2.0",
    "memory",
    "cabi_realloc",
    "describe",
];

#[test]
fn a_component_of_any_bytes_is_refused_with_what_is_wrong_or_passes_the_gates() {
    let limits = "[limits]\ncall_time_ms = 500\n";
    let site = Site::new(&format!("{}{limits}", configuration()));
    let host = site.start();
    // Small ones, because the rest is the same.
    let seeds = vec![fixture("unready"), fixture("eavesdropper"), fixture("stuck"), plugin("delivery")];
    let outcomes = Outcomes::default();
    run(COST, &near(seeds, WORDS), |component| {
        let reply = host.deploy(&component, "?dry-run=true");
        let answer: Value = serde_json::from_str(&reply.text).unwrap();
        let report = if reply.status == 200 { &answer } else { &answer["report"] };
        prop_assert!([200, 422].contains(&reply.status), "{} {}", reply.status, reply.text);
        for gate in report["services"][0]["gates"].as_array().into_iter().flatten() {
            let (name, says) = (gate["gate"].as_str().unwrap(), gate["says"].as_str().unwrap());
            prop_assert!(!says.contains("panicked") && says.contains(' '), "{gate}");
            if gate["outcome"] == "refused" {
                outcomes
                    .count(&format!("{name}: {:.50}", says.replace(|c: char| !c.is_ascii_graphic(), " ")));
            }
        }
        outcomes.count(if reply.status == 200 { "passed" } else { "refused" });
        Ok(())
    });
    outcomes.print("");
    assert_eq!(host.get("/admin/plugins").ok()["items"].as_array().unwrap().len(), 5);
    // A component's panic is in the middle of a line, as the detail of its fault.
    assert!(!host.log().lines().any(|line| line.starts_with("thread '")), "{}", host.log());
}
