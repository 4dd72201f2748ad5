//! `cargo xtask fuzz`: the tests in modules named `fuzz` with many more inputs than in the usual run.

use crate::cargo::{Workspace, succeed};
use crate::{ALL, Result, build, nats};

/// The inputs for each part.
pub(crate) const CASES: u32 = 1_000_000;
/// The tests that generate their inputs.
const TESTS: &str = "test(/(^|::)fuzz::/)";

/// Runs them with this number of inputs each, and prints the outcomes. Needs `cargo nextest`.
pub(crate) fn fuzz(workspace: &Workspace, cases: u32, runner_arguments: &[String]) -> Result<()> {
    // With optimizations: a million inputs take minutes, not hours.
    build(workspace, ALL, true)?;
    nats::ensure(workspace)?;
    let mut tests = workspace.cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
    tests.args(["--cargo-profile", "release"]);
    tests.args(["--filterset", TESTS, "--success-output", "final"]).args(runner_arguments);
    succeed("fuzz", tests.env("PROPTEST_CASES", cases.to_string()))
}
