//! `cargo xtask test`: all that must hold before a change is merged.

use std::process::Stdio;
use std::time::Instant;

use crate::cargo::{Workspace, succeed};
use crate::{ALL, Result, api_tools, instructions, layers, links, nats, new_service, oidc, plugins, tidy};

/// The manifest of the bench, which is outside of the workspace so that it slows no other build.
pub(crate) const BENCH: &str = "bench/Cargo.toml";

/// Runs the stages in order and stops at the first failure. `runner_arguments` are passed to the test runner.
pub(crate) fn test(workspace: &Workspace, runner_arguments: &[String]) -> Result<()> {
    let cargo = |name, arguments: &[&str]| succeed(name, &mut workspace.cargo(arguments));
    let started = Instant::now();

    stage("format", || {
        cargo("format", &["fmt", "--all", "--check"])?;
        cargo("format", &["fmt", "--manifest-path", BENCH, "--check"])
    })?;
    stage("layers", || layers::check(workspace))?;
    stage("tidy", || tidy::check(workspace))?;
    stage("links", || links::check(workspace))?;
    stage("lints", || {
        cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
        // With the profiles and the target directory of the workspace, so that nothing is checked twice.
        let lints = ["--config", "Cargo.toml", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        let mut bench = workspace.cargo(&["clippy", "--manifest-path", BENCH]);
        succeed("lints", bench.args(lints).env("CARGO_TARGET_DIR", &workspace.target))
    })?;
    stage("documentation", || {
        let mut doc = workspace.cargo(&["doc", "--workspace", "--no-deps"]);
        succeed("documentation", doc.env("RUSTDOCFLAGS", "--deny warnings"))
    })?;
    stage("plugins", || plugins::build(workspace, ALL))?;
    stage("nats-server", || nats::ensure(workspace))?;
    stage("identity provider", || oidc::ensure(workspace))?;
    stage("tools of the API", || api_tools::ensure(workspace))?;
    if has_nextest(workspace) {
        stage("tests", || {
            let mut tests = workspace.cargo(&["nextest", "run", "--workspace"]);
            succeed("tests", tests.args(runner_arguments))
        })?;
        // nextest does not run the examples in the documentation.
        stage("examples", || cargo("examples", &["test", "--doc", "--workspace"]))?;
    } else {
        stage("tests", || {
            let mut tests = workspace.cargo(&["test", "--workspace"]);
            succeed("tests", tests.args(runner_arguments))
        })?;
    }
    stage("instructions", || instructions::check(workspace, false))?;
    // The service is outside of the workspace, so the host is compiled once more for it: a minute after a
    // change of the host, seconds otherwise.
    stage("a new service", || new_service::check(workspace))?;
    eprintln!("==> all passed ({:.1} s)", started.elapsed().as_secs_f32());
    Ok(())
}

fn stage(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("==> {name}");
    let started = Instant::now();
    let outcome = work();
    let seconds = started.elapsed().as_secs_f32();
    match &outcome {
        Ok(()) => eprintln!("==> {name}: passed ({seconds:.1} s)"),
        Err(_) => eprintln!("==> {name}: failed ({seconds:.1} s)"),
    }
    outcome
}

fn has_nextest(workspace: &Workspace) -> bool {
    let mut ask = workspace.cargo(&["nextest", "--version"]);
    ask.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
