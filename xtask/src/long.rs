//! `cargo xtask long`: the tests that send random load or kill hosts, in the sizes that take an hour and not
//! seconds.

use crate::cargo::{Workspace, succeed};
use crate::{ALL, Result, api_tools, build, nats};

/// The tests, with the sizes that they have in the environment.
const TESTS: &str = "test(/^(accidents|killed|openapi|property|reports|storm)::/)";
const SIZES: [(&str, &str); 7] = [
    ("KONTOR_ACCIDENT_ROUNDS", "200"),
    ("KONTOR_API_EXAMPLES", "50"),
    ("KONTOR_KILLED_ORDERS", "200"),
    ("KONTOR_KILLED_SAGAS", "1000"),
    ("KONTOR_PROPERTY_COMMANDS", "20000"),
    ("KONTOR_REPORT_ORDERS", "10000"),
    ("KONTOR_STORM_SECONDS", "60"),
];

/// Runs them one after another, and prints their outcomes. Needs `cargo nextest`.
pub(crate) fn long(workspace: &Workspace, runner_arguments: &[String]) -> Result<()> {
    build(workspace, ALL, false)?;
    nats::ensure(workspace)?;
    api_tools::ensure(workspace)?;
    let mut tests =
        workspace.cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "--test-threads", "1"]);
    tests.args(["--filterset", TESTS, "--success-output", "final"]).args(runner_arguments);
    // A size that is set already stays.
    let sizes = SIZES.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    succeed("long run", tests.envs(sizes))
}
